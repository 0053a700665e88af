"""Optimal bins work without the private names of optbinning that keep SIGINT in Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from peerloan import sample_data
from peerloan.book import open_writer

WITHOUT = """
import sys
import optbinning.binning
del optbinning.binning.cp
sys.modules["optbinning.binning.cp"] = None
from peerloan.cli.main import main
main()
"""


def test_training_works_without_the_private_names(tmp_path: Path) -> None:
    book = tmp_path / "book.csv"
    with open_writer(book, sample_data.SCHEMA) as writer:
        for batch in sample_data.batches(2_000, seed=7):
            writer.write(batch)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "train", str(book), "--quick", "--candidate", "binned"],
        env=os.environ | {"PEERLOAN_STORE": str(tmp_path / "store")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [version] = (tmp_path / "store" / "versions").iterdir()
    assert version.name.startswith("binned-")
