"""What the tests' last line says of a machine on which programs are missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.programs import describe_skipped


def test_one_line_names_what_is_missing_and_the_command_that_adds_it() -> None:
    reasons = ["Skipped: Chromium is not installed"] * 2
    reasons += ["Skipped: PostgreSQL is not installed", "Skipped: needs /dev/full"]
    assert describe_skipped(reasons) == (
        "4 tests skipped: PostgreSQL is not installed; Chromium is not installed; needs /dev/full."
        " To add them: apt-get install --no-install-recommends postgresql-15 chromium"
        " chromium-driver"
    )
    assert describe_skipped(["Skipped: needs /dev/full"]) == "1 test skipped: needs /dev/full"


@pytest.mark.longer
def test_a_run_ends_with_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--basetemp", tmp_path / "base"),
            *(
                "-p",
                "no:cacheprovider",
                "tests/unit/test_operating_files.py",
                "-k",
                "prometheus_agrees",
            ),
        ],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = "3 tests skipped: promtool is not installed. To add them: apt-get install"
    assert done.stdout.count(line) == 1
