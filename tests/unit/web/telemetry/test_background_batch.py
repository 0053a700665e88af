"""Records are handled whole, in order, and before the process ends."""

from __future__ import annotations

import select
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from peerloan.web.telemetry.middleware import split_for_pipe

MANY = """
import sys, threading
from peerloan.web.telemetry.background_batch import BackgroundBatch

def write(lines):
    sys.stdout.write("".join(line + chr(10) for line in lines))

aside = BackgroundBatch(write)
threads = [
    threading.Thread(target=lambda t=t: [aside.put(f"{t} {i}") for i in range(500)])
    for t in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_every_record_is_handled_before_the_process_ends() -> None:
    done = run(MANY)
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == 2000
    for thread in range(4):
        assert [i for t, i in found if t == thread] == list(range(500))


def test_what_fails_ends_nothing() -> None:
    done = run(
        "import time\n"
        "from peerloan.web.telemetry.background_batch import BackgroundBatch\n"
        "aside = BackgroundBatch(lambda records: print(records[0] + 0))\n"
        "for record in ('no number', 1, 2):\n    aside.put(record); time.sleep(0.2)\n"
    )
    assert done.stdout.split() == ["1", "2"]
    assert "records of 1 requests are lost" in done.stderr


def test_a_thread_that_keeps_no_process_alive_may_hand_over_the_first() -> None:
    """As a request's thread under Granian, whose new threads would be alike."""
    done = run(
        "import threading, time\n"
        "from peerloan.web.telemetry.background_batch import BackgroundBatch\n"
        "aside = BackgroundBatch(lambda records: (time.sleep(1), print(*records)))\n"
        "first = threading.Thread(target=aside.put, args=('kept',), daemon=True)\n"
        "first.start()\n"
        "first.join()\n"
    )
    assert done.stdout.split() == ["kept"]


@given(st.lists(st.integers(1, 6000).map(lambda n: b"x" * (n - 1) + b"\n"), max_size=30))
def test_lines_are_written_whole_and_as_a_pipe_takes_them_at_once(lines: list[bytes]) -> None:
    pieces = list(split_for_pipe(b"".join(lines)))
    assert b"".join(pieces) == b"".join(lines)
    for piece in pieces:
        assert piece.endswith(b"\n")
        assert len(piece) <= select.PIPE_BUF or piece.count(b"\n") == 1
