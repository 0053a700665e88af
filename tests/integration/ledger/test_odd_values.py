"""Whatever stands in the tables, `peerloan ledger verify` names it: SQLite takes anything."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from peerloan.cli.console import CommandError
from peerloan.cli.main import peerloan
from peerloan.ledger.retention import purge

# SQL of each.
VALUES = {
    "text": "'text'",
    "no text": "CAST(x'ff00' AS TEXT)",
    "bytes": "x'ff00'",
    "no bytes": "x''",
    "a fraction": "0.5",
    "infinite": "9e999",
    "a large number": "9223372036854775807",
    "a negative one": "-9223372036854775808",
    "nothing": "NULL",
}
COLUMNS = {
    "chains": ("opened_ms", "release", "heads", "mac", "head_seq", "head_mac", "head_id", "number"),
    "versions": ("version", "digest", "threshold", "number"),
    "purges": ("time_ms", "before_ms", "decisions", "who", "mac", "number"),
    "decisions": (
        *("id", "time_ms", "chain", "seq", "version", "inputs", "late", "salt", "digest", "mac"),
    ),
}
HEADS = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "not closed": "[" * 100_000,
    "a deep one in it": f"[[1, 2, {'[' * 100_000}{']' * 100_000}]]",
    "long": "[" + ",".join(['[1, 1, "00"]'] * 300_000) + "]",
    "longer than any": " " * 40_000_000,
    "a number of many digits": f"[[1, {'9' * 4_000}, '']]",
    "a huge number": f'[[1, {10**300}, ""]]',
    "no number": '[[1, NaN, ""]]',
    "infinite": '[[1, Infinity, ""]]',
    "other types": '[["1", null, 3]]',
    "half of them": "[[1, 1]]",
    "an object": "{}",
    "half of a letter": '[[1, 1, "\\ud800"]]',
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of two chains, with a purge, to be copied."""
    folder = tmp_path_factory.mktemp("ledger")
    made = Ledger(f"sqlite:///{folder / 'ledger.db'}", folder)
    for _ in range(2):
        chain = made.chain()
        append(chain, [record(now_ms() - 9 * DAY_MS), *(record() for _ in range(4))])
        chain.close()
    purge(made.database, made.seal, now_ms() - 2 * DAY_MS, "somebody")
    made.database.engine.dispose()
    return folder


def findings(folder: Path, *statements: str) -> list[str] | None:
    """The kinds of what the command names once the database was changed; None: it was not."""
    file = folder / f"changed-{secrets.token_hex(4)}.db"
    shutil.copy(folder / "ledger.db", file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        try:
            changed = [connection.execute(each).rowcount for each in statements]
        except (sqlite3.IntegrityError, sqlite3.DataError):
            return None  # not even SQLite takes it
    assert all(changed)
    settings = {"PEERLOAN_LEDGER": f"sqlite:///{file}"}
    settings["PEERLOAN_SEAL"] = str(folder / "peerloan-seal")
    for arguments in (["ledger", "verify"], ["ledger", "verify", "--json"]):
        done = CliRunner().invoke(peerloan, arguments, env=settings)
        assert done.exception is None or isinstance(done.exception, CommandError), done.exc_info
    return [each["kind"] for each in json.loads(done.stdout)["findings"]]


@pytest.mark.parametrize("table", COLUMNS)
def test_values_that_no_writer_wrote_are_named(template: Path, table: str) -> None:
    assert findings(template) == []
    unseen = set()
    for column in COLUMNS[table]:
        for value in VALUES.values():
            # Of decisions the last, which has its values yet.
            one = f"rowid = (SELECT max(rowid) FROM {table})"
            if findings(template, f"UPDATE {table} SET {column} = {value} WHERE {one}") == []:
                unseen.add(column)
    # A chain's row tells where its head is, for who reads: what is sealed stands outside.
    assert unseen == ({"head_seq", "head_mac", "head_id"} if table == "chains" else set())


@pytest.mark.parametrize("heads", HEADS)
def test_heads_that_no_writer_named_are_a_finding(template: Path, heads: str) -> None:
    told = HEADS[heads].replace("'", "''")
    assert findings(template, f"UPDATE chains SET heads = '{told}' WHERE number = 2") == [
        "edited chain"
    ]


def test_an_opening_of_no_writer_s_is_no_traceback_for_a_writer(template: Path) -> None:
    """It goes on: a chain before fits the key."""
    file = template / "changed.db"
    shutil.copy(template / "ledger.db", file)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(f"UPDATE chains SET heads = '{HEADS['deep']}' WHERE number = 2")
    shutil.copytree(template / "peerloan-seal", template / "own" / "peerloan-seal")
    ledger = Ledger(f"sqlite:///{file}", template / "own")
    append(ledger.chain(), [record()])
