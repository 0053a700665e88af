"""Ctrl-C ends a command over a book soon, wherever it is, and leaves nothing half-written."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peerloan import sample_data
from peerloan.book import draft_definition, open_book, open_writer

pytestmark = pytest.mark.longer

# Only ends a hang; a command that reads on would take longer by far.
LIMIT_SECONDS = 60
WIDTH = 60
HEADER = ("y," + ",".join(f"c{i}" for i in range(WIDTH)) + "\n").encode()


def rows(count: int) -> bytes:
    return b"".join(
        f"{i % 5 == 0:d},{','.join(f'{(i * 7 + k) % 997}.5' for k in range(WIDTH))}\n".encode()
        for i in range(count)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Books that take long to be read, none of them of a megabyte, and a definition of them."""
    made = tmp_path_factory.mktemp("long")
    some = rows(1_000)
    (made / "short.csv").write_bytes(HEADER + some)
    text = draft_definition(open_book(made / "short.csv"), "y")
    (made / "loan.toml").write_text(text, "utf-8")
    for name, block, times in (
        ("good.csv.gz", some, 200),
        # Each row is a call from the parser, a million of them a block of it.
        ("mixed.csv.gz", some[: some.index(b"\n") + 1] + b"1\n" * 8, 200_000),
        ("lines.jsonl.gz", b'{"y": 1, "c0": 2.5}\n' * 1_000, 2_000),
    ):
        with gzip.open(made / name, "wb", 6) as file:
            if name.endswith(".csv.gz"):
                file.write(HEADER)
            for _ in range(times):
                file.write(block)
    return made


@pytest.mark.parametrize(
    ("command", "book", "number"),
    [
        ("check", "good.csv.gz", signal.SIGINT),
        ("check", "mixed.csv.gz", signal.SIGINT),
        ("check", "mixed.csv.gz", signal.SIGTERM),
        ("check", "lines.jsonl.gz", signal.SIGINT),
        ("define", "good.csv.gz", signal.SIGTERM),
        ("explore", "good.csv.gz", signal.SIGINT),
    ],
)
def test_a_signal_ends_a_long_reading(
    folder: Path, tmp_path: Path, command: str, book: str, number: signal.Signals
) -> None:
    options = {
        "check": ["--definition", str(folder / "loan.toml")],
        "define": ["--label", "y", "-o", "out"],
        "explore": ["--definition", str(folder / "loan.toml"), "-o", "out"],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "peerloan", command, str(folder / book), *options[command]],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PEERLOAN_STORE": str(tmp_path / "store")},
    )
    until = time.monotonic() + LIMIT_SECONDS
    while not is_open(process.pid, folder / book) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.5)
    assert process.poll() is None, "it is reading"
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "peerloan: stopped"
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def is_open(pid: int, path: Path) -> bool:
    """Whether a process has opened a file."""
    try:
        return any(each.resolve() == path for each in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# The library of optimal bins, whose solver has a handler of its own, is done by then.
PUBLISHING = """
import sys, threading
from peerloan.registry import Store
def hang(store, draft):
    print("publishes", flush=True)
    threading.Event().wait()
Store.publish = hang
from peerloan.cli.main import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_training_of_optimal_bins(tmp_path: Path, number: signal.Signals) -> None:
    store, book = tmp_path / "store", tmp_path / "book.csv"
    with open_writer(book, sample_data.SCHEMA) as writer:
        for batch in sample_data.batches(2_000, seed=7):
            writer.write(batch)
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHING, "train", str(book), "--quick", "--candidate", "binned"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PEERLOAN_STORE": str(store)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "publishes\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "peerloan: stopped"
    assert not list(store.rglob("*"))
