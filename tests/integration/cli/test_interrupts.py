"""SIGINT and SIGTERM end a command over a book soon, and it leaves no incomplete files."""

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

# A command that ignored the signal would take much longer.
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
    """Books below a megabyte that take long to read, and a definition of them."""
    books = tmp_path_factory.mktemp("long")
    block_of_rows = rows(1_000)
    (books / "short.csv").write_bytes(HEADER + block_of_rows)
    text = draft_definition(open_book(books / "short.csv"), "y")
    (books / "loan.toml").write_text(text, "utf-8")
    for name, block, times in (
        ("good.csv.gz", block_of_rows, 200),
        # The parser calls back for each bad row, a million times per block.
        ("mixed.csv.gz", block_of_rows[: block_of_rows.index(b"\n") + 1] + b"1\n" * 8, 200_000),
        ("lines.jsonl.gz", b'{"y": 1, "c0": 2.5}\n' * 1_000, 2_000),
    ):
        with gzip.open(books / name, "wb", 6) as file:
            if name.endswith(".csv.gz"):
                file.write(HEADER)
            for _ in range(times):
                file.write(block)
    return books


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
def test_a_signal_ends_a_command_that_reads_a_book(
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
    assert process.poll() is None, "the command ended before the signal"
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_SECONDS)
    assert process.returncode == 128 + number
    assert err.splitlines()[-1] == "peerloan: stopped"
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def is_open(pid: int, path: Path) -> bool:
    """Whether a process has opened a file."""
    try:
        return any(file.resolve() == path for file in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return False


# By then the library for optimal bins, whose solver handles signals itself, has finished.
TRAIN_AND_HANG = """
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
        [
            sys.executable,
            "-c",
            TRAIN_AND_HANG,
            "train",
            str(book),
            "--quick",
            "--candidate",
            "binned",
        ],
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
