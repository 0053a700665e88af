"""Measures the peak memory of a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

# VmHWM belongs to this program alone; getrusage in the parent would include the forked tests.
_RUN = """
import re, sys
from pathlib import Path
from peerloan.cli import main
sys.argv[0] = "peerloan"
try:
    main()
finally:
    print(re.search("VmHWM:.*", Path("/proc/self/status").read_text())[0], file=sys.stderr)
"""


class Measured(NamedTuple):
    """A command's exit code, its output, and its peak resident memory in MB."""

    code: int
    output: str
    peak_mb: float


def measure(folder: Path, environment: Mapping[str, str], *arguments: object) -> Measured:
    """Run `peerloan …` in a folder, and measure its memory."""
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *map(str, arguments)],
        cwd=folder,
        env=os.environ | dict(environment),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    output = done.stdout + done.stderr
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
    assert peak is not None, output
    return Measured(done.returncode, output, int(peak[1]) * 1024 / 1e6)
