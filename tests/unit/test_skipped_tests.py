"""The last line of a test run names missing programs and how to install them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from helpers.programs import describe_skipped


def test_one_line_names_missing_programs_and_the_command_that_installs_them() -> None:
    reasons = ["Skipped: Chromium is not installed"] * 2
    reasons += ["Skipped: PostgreSQL is not installed", "Skipped: needs /dev/full"]
    assert describe_skipped(reasons) == (
        "4 tests skipped: PostgreSQL is not installed; Chromium is not installed; needs /dev/full."
        " To add them: apt-get install --no-install-recommends postgresql-15 chromium"
        " chromium-driver"
    )
    assert describe_skipped(["Skipped: needs /dev/full"]) == "1 test skipped: needs /dev/full"


@pytest.mark.longer
def test_a_run_ends_with_this_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--basetemp", tmp_path / "base"),
            *(
                "-p",
                "no:cacheprovider",
                "tests/unit/test_operating_files.py",
                "-k",
                "promtool_accepts",
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
