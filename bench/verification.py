"""Run the long checks in full size: fuzzing, load tests and simulations.

python bench/verification.py [PART …]

Runs the named parts, or all of them, one after the other. Writes the result of each into
docs/verification.json, and renders docs/verification.md from that file; the tables of a benchmark
are in docs/verification/. A part that was not run keeps its earlier result. The exit code is 1 if a
part failed.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

ROOT = Path(__file__).parent.parent
DATA, PAGE = ROOT / "docs/verification.json", ROOT / "docs/verification.md"
OUTPUTS = ROOT / "docs/verification"
PYTEST = "python -m pytest -q -p no:cacheprovider"
HEAD = """# Verification

`make verify` runs checks that take too long to run for every change, and writes this page. To run
only some parts: `make verify PARTS="calm-windows faults"`. The tests are those of `make test` and
`make test-all`, with more examples, longer loads and more simulated windows.

| part | what it checks | run on | commit | cores | took | result |
|---|---|---|---|---:|---:|---|
"""


class Part(NamedTuple):
    """A command, and what has been checked if its exit code is 0."""

    shows: str
    command: str

    @property
    def is_test(self) -> bool:
        """Whether it runs tests, whose last line says everything; a benchmark prints tables."""
        return self.command.startswith(PYTEST)


class Result(msgspec.Struct):
    """The result of a part."""

    day: str
    commit: str
    cores: int
    seconds: float
    passed: bool
    # The last line that tests printed; empty for a benchmark.
    line: str


PARTS = {
    "properties": Part(
        "every property holds for 500 random examples",
        f"{PYTEST} tests/unit tests/integration -m hypothesis",
    ),
    "schemathesis": Part(
        "300 requests to each operation: every answer matches the API's description",
        f"{PYTEST} tests/integration/web/api/openapi",
    ),
    "calm-windows": Part(
        'at most 1 in 1,000 windows without drift causes an alert of level "act"',
        f"{PYTEST} tests/unit/monitoring/alerts/test_false_alarms.py",
    ),
    "faults": Part(
        "no answered decision is lost or stored twice if the ledger's database fails under load",
        f"{PYTEST} tests/integration/ledger/write/test_faults.py",
    ),
    "swaps": Part(
        "no request fails while the champion changes four times a second",
        "python bench/hot_swap.py --seconds 60",
    ),
    "alarms": Part("how often alerts fire with and without drift", "python bench/monitoring.py"),
    "leaps": Part(
        "how far versions leap that are trained on honest and on invented outcomes",
        "python bench/leaps.py",
    ),
}


def main() -> None:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = ", ".join(sorted(set(chosen) - set(PARTS)))
    if unknown:
        parser.error(f"unknown part: {unknown}; expected one of {', '.join(PARTS)}")
    results, commit = read_results(), _commit()  # before a result changes a file
    for name in chosen:
        print(f"== {name}: {PARTS[name].command}", flush=True)
        results[name] = run(name, commit)
        DATA.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
        PAGE.write_text(render(results), "utf-8")
    sys.exit(not all(results[name].passed for name in chosen))


def read_results() -> dict[str, Result]:
    """Return the results of earlier runs."""
    if not DATA.exists():
        return {}
    return msgspec.json.decode(DATA.read_bytes(), type=dict[str, Result])


def run(name: str, commit: str) -> Result:
    """Run a part in full size. Print its output, and keep the last line or the tables."""
    part = PARTS[name]
    environment = os.environ | {"HYPOTHESIS_PROFILE": "ci-long", "COLUMNS": "120"}
    words = [sys.executable if word == "python" else word for word in shlex.split(part.command)]
    began = time.monotonic()
    lines: list[str] = []
    with subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for printed in process.stdout or ():
            print(printed, end="", flush=True)
            if printed.strip():
                lines.append(printed.rstrip())
    if not part.is_test:
        OUTPUTS.mkdir(exist_ok=True)
        (OUTPUTS / f"{name}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return Result(
        day=datetime.now(UTC).date().isoformat(),
        commit=commit,
        cores=os.cpu_count() or 1,
        seconds=round(time.monotonic() - began, 1),
        passed=process.returncode == 0,
        line=lines[-1].strip("= ") if part.is_test and lines else "",
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()


def render(results: dict[str, Result]) -> str:
    """Render the page, with a row for each part."""
    rows = []
    for name, part in PARTS.items():
        result = results.get(name)
        if result is None:
            cells = ["not run yet", "", "", "", ""]
        else:
            word = "passed" if result.passed else "**failed**"
            took = f"{result.seconds:,.0f} s"
            shown = result.line.replace("|", "\\|")
            if not part.is_test:
                shown = f"[its tables](verification/{name}.txt)"
            cells = [result.day, f"`{result.commit}`", str(result.cores), took, f"{word}: {shown}"]
        rows.append(f"| `{name}` | {part.shows} | {' | '.join(cells)} |")
    commands = [f"- `{name}`: `{part.command}`" for name, part in PARTS.items()]
    return HEAD + "\n".join(rows) + "\n\n## Commands\n" + "\n".join(commands) + "\n"


if __name__ == "__main__":
    main()
