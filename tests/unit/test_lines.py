"""Lines reach standard output whole, in order, and before the process ends."""

from __future__ import annotations

import subprocess
import sys

MANY = """
import threading
from peerloan.service.lines import Lines

lines = Lines()
threads = [
    threading.Thread(target=lambda t=t: [lines.write(f"{t} {i}".encode()) for i in range(500)])
    for t in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_every_line_is_written_whole_before_the_process_ends() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(found) == 2000
    for thread in range(4):
        assert [i for t, i in found if t == thread] == list(range(500))


def test_a_reader_that_has_gone_ends_nothing() -> None:
    code = (
        "import sys, time; from peerloan.service.lines import Lines; lines = Lines()\n"
        "for _ in range(20):\n    lines.write(b'x' * 100_000); time.sleep(0.02)\n"
        "print('went on', file=sys.stderr)"
    )
    command = f'{sys.executable} -c "$CODE" | head -c 10'
    done = subprocess.run(
        ["sh", "-c", command], env={"CODE": code}, capture_output=True, text=True, timeout=60
    )
    assert "went on" in done.stderr
    assert "Traceback" not in done.stderr
