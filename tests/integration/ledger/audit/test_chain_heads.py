"""What stands outside of the database shows what was taken away from it, and can't be forged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, delete, select, update

from helpers.commands import Run
from helpers.ledgers import Ledger, append, record
from helpers.postgres import Postgres
from peerloan.cli.console import CommandError
from peerloan.cli.main import peerloan
from peerloan.database import tables
from peerloan.ledger import Chain
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.write import chain_opening

Attack = Callable[[Ledger], None]
Where = tuple[str, int | None]
decisions, chains = tables.decisions, tables.chains
TABLES = (decisions, chains, tables.versions)


def filled(url: str, folder: Path) -> Ledger:
    """Four chains: one still open, a closed one, one whose writer was killed, and a closed one."""
    made = Ledger(url, folder)
    live, closed, killed = made.chain(), made.chain(), made.chain()
    for chain in (live, closed, killed):
        append(chain, [record() for _ in range(6)])
    live.write_head()
    closed.close()
    killed.write_head()
    last = made.chain()
    append(last, [record() for _ in range(5)])
    last.close()
    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A filled ledger in SQLite, to be copied."""
    folder = tmp_path_factory.mktemp("ledger")
    made = filled(f"sqlite:///{folder / 'ledger.db'}", folder)
    made.database.engine.dispose()
    return folder


@pytest.fixture
def ledger(template: Path, tmp_path: Path) -> Ledger:
    """A ledger of the test's own."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path)


def heads(ledger: Ledger) -> Path:
    return ledger.seal_folder / "heads"


def head(ledger: Ledger, number: int) -> Path:
    return heads(ledger) / f"{number:06d}.json"


def unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def removed(ledger: Ledger, *numbers: int) -> None:
    """Chains are removed: their rows, records and heads."""
    with ledger.database.writing() as connection:
        connection.execute(delete(chains).where(chains.c.number.in_(numbers)))
        connection.execute(delete(decisions).where(decisions.c.chain.in_(numbers)))
    unlink(*(head(ledger, number) for number in numbers))


def folder_in_its_place(ledger: Ledger) -> None:
    head(ledger, 4).unlink()
    head(ledger, 4).mkdir()


def cut(connection: Connection, number: int, after: int) -> None:
    """A chain's end is removed, and what the database tells of it."""
    gone = delete(decisions).where(decisions.c.chain == number, decisions.c.seq > after)
    connection.execute(gone)
    found = select(decisions.c.id, decisions.c.mac).where(decisions.c.chain == number)
    last = connection.execute(found.where(decisions.c.seq == after)).one_or_none()
    opening = connection.execute(select(chains.c.mac).where(chains.c.number == number)).scalar()
    values = {
        "head_seq": after,
        "head_mac": opening if last is None else last.mac,
        "head_id": None if last is None else last.id,
    }
    connection.execute(update(chains).where(chains.c.number == number).values(values))


def cut_with_head(number: int, after: int) -> Attack:
    def attack(ledger: Ledger) -> None:
        with ledger.database.writing() as connection:
            cut(connection, number, after)
        head(ledger, number).unlink()

    return attack


def renamed(ledger: Ledger, number: int) -> None:
    with ledger.database.writing() as connection:
        cut(connection, number, 0)
    head(ledger, number).rename(head(ledger, number).with_suffix(".opening"))


def emptied(ledger: Ledger) -> None:
    for path in heads(ledger).iterdir():
        path.unlink()


def folder_removed(ledger: Ledger) -> None:
    shutil.rmtree(heads(ledger))


def all_removed(ledger: Ledger) -> None:
    with ledger.database.writing() as connection:
        for table in TABLES:
            connection.execute(delete(table))
    emptied(ledger)


def all_but_the_key_removed(ledger: Ledger) -> None:
    all_removed(ledger)
    for path in ledger.seal_folder.iterdir():
        if path.is_file() and path.name != "key":
            path.unlink()


def rewritten(number: int, **values: object) -> Attack:
    """A head is written anew by hand; a value that is None is left out."""

    def attack(ledger: Ledger) -> None:
        told = json.loads(head(ledger, number).read_text()) | values
        kept = {name: value for name, value in told.items() if value is not None}
        head(ledger, number).write_text(json.dumps(kept))

    return attack


def cut_and_rewritten(ledger: Ledger) -> None:
    """As somebody cuts off an end who knows what a head looked like before it had a MAC."""
    with ledger.database.writing() as connection:
        cut(connection, 4, 3)
        mac = select(chains.c.head_mac).where(chains.c.number == 4)
        last = connection.execute(mac).scalar_one()
    rewritten(4, seq=3, mac=last.hex(), seal=None)(ledger)


def content(number: int, raw: bytes) -> Attack:
    return lambda ledger: void(head(ledger, number).write_bytes(raw))


def void(_: object) -> None:
    pass


def newest_content(raw: bytes) -> Attack:
    return lambda ledger: void((ledger.seal_folder / "newest").write_bytes(raw))


ATTACKS: dict[str, tuple[Attack, list[Where]]] = {
    "the heads' folder emptied": (emptied, [("missing head", 1)]),
    "the heads' folder removed": (folder_removed, [("missing head", 1)]),
    "an open chain's head removed": (lambda here: head(here, 1).unlink(), [("missing head", 1)]),
    "a closed chain's head removed": (lambda here: head(here, 2).unlink(), [("missing head", 2)]),
    "a killed writer's head removed": (lambda here: head(here, 3).unlink(), [("missing head", 3)]),
    "the newest head removed": (lambda here: head(here, 4).unlink(), [("missing head", 4)]),
    "two heads removed": (
        lambda here: unlink(head(here, 1), head(here, 3)),
        [("missing head", 1), ("missing head", 3)],
    ),
    "the newest chain's end removed with its head": (
        cut_with_head(4, 3),
        [("missing head", 4)],
    ),
    "the newest chain's records removed with its head": (
        cut_with_head(4, 0),
        [("missing head", 4)],
    ),
    "the newest chain's records removed, and its head renamed to an announcement": (
        lambda here: renamed(here, 4),
        [("missing head", 4)],
    ),
    # The opening of chain 4 names it, closed as it is.
    "a closed chain's end removed with its head": (
        cut_with_head(2, 3),
        [("cut-off end", 2), ("missing head", 2)],
    ),
    "an open chain's end removed with its head": (
        cut_with_head(1, 3),
        [("cut-off end", 1), ("missing head", 1)],
    ),
    "the last chain removed": (lambda here: removed(here, 4), [("missing chain", 4)]),
    "a chain in the middle removed": (lambda here: removed(here, 2), [("missing chain", 2)]),
    "the first chain removed": (lambda here: removed(here, 1), [("missing chain", 1)]),
    "the last two chains removed": (
        lambda here: removed(here, 3, 4),
        [("missing chain", 3)],
    ),
    "everything removed": (all_removed, [("missing chain", 1)]),
    "everything but the key removed": (all_but_the_key_removed, [("missing head", None)]),
    "another chain's head copied over one": (
        lambda here: void(shutil.copy(head(here, 2), head(here, 4))),
        [("edited head", 4)],
    ),
    "a head written by hand": (rewritten(4, seq=3), [("edited head", 4)]),
    "a head's MAC taken away": (rewritten(4, seal=None), [("edited head", 4)]),
    "an end cut off, and its head written by hand": (cut_and_rewritten, [("edited head", 4)]),
    "a head that says it is another's": (rewritten(4, chain=2), [("edited head", 4)]),
    "a head of no JSON": (content(4, b"{"), [("edited head", 4)]),
    "an empty head": (content(4, b""), [("edited head", 4)]),
    "a deep head": (content(4, b"[" * 4000), [("edited head", 4)]),
    "a deep value in a head": (
        content(4, b'{"x": ' + b"[" * 2000 + b"]" * 2000 + b"}"),
        [("edited head", 4)],
    ),
    "a long head": (content(4, b" " * 100_000_000), [("edited head", 4)]),
    "a head of other types": (rewritten(4, seq="5"), [("edited head", 4)]),
    "a head of huge numbers": (rewritten(4, seq=10**300), [("edited head", 4)]),
    "a folder in a head's place": (
        folder_in_its_place,
        [("edited head", 4)],
    ),
    "a file that is no head": (
        lambda here: void((heads(here) / "12abc.json").write_text("x")),
        [],
    ),
    "the number of chains removed": (
        lambda here: (here.seal_folder / "newest").unlink(),
        [("missing head", None)],
    ),
    "the number of chains written by hand": (
        newest_content(b'{"chain": 3, "seal": ""}'),
        [("edited head", None)],
    ),
    "no number of chains": (newest_content(b"[" * 4000), [("edited head", None)]),
}


def verified(ledger: Ledger) -> list[Where]:
    """What the command names: kind and chain."""
    settings = {"PEERLOAN_LEDGER": ledger.url, "PEERLOAN_SEAL": str(ledger.seal_folder)}
    done = CliRunner().invoke(peerloan, ["ledger", "verify", "--json"], env=settings)
    report = json.loads(done.stdout)
    assert isinstance(done.exception, CommandError) == bool(report["findings"])
    return [(each["kind"], each.get("chain")) for each in report["findings"]]


@pytest.mark.parametrize("what", ATTACKS)
def test_what_is_done_without_the_key_is_a_finding(ledger: Ledger, what: str) -> None:
    attack, expected = ATTACKS[what]
    attack(ledger)
    assert verified(ledger) == expected


def test_the_same_is_found_in_postgresql(postgres: Postgres, tmp_path: Path) -> None:
    ledger = filled(postgres.new(), tmp_path)
    assert verified(ledger) == []
    cut_with_head(4, 3)(ledger)
    assert verified(ledger) == [("missing head", 4)]
    removed(ledger, 1, 2)
    assert verified(ledger) == [("missing chain", 1), ("missing head", 4)]
    emptied(ledger)
    assert verified(ledger) == [("missing chain", 1), ("missing head", 3)]


def test_a_finding_says_what_to_do(run: Run, ledger: Ledger) -> None:
    emptied(ledger)
    done = run("ledger", "verify", ledger=ledger.url)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"missing head: chains 1 to 4 have no heads in {heads(ledger)}: the files were removed, "
        "and records at a chain's end may have been removed unnoticed; restore what is missing "
        "from a backup of the folder",
        "23 records in 4 chains",
    ]


def test_an_older_head_shows_by_the_openings_after_it(ledger: Ledger) -> None:
    """An older copy is a head that its writer wrote: what was named later tells it apart."""
    chain = ledger.chain()
    older = head(ledger, chain.number).read_bytes()
    append(chain, [record() for _ in range(4)])
    chain.close()
    ledger.chain().close()
    assert verified(ledger) == []
    with ledger.database.writing() as connection:
        cut(connection, chain.number, 0)
    head(ledger, chain.number).write_bytes(older)
    assert verified(ledger) == [("cut-off end", chain.number)]


def test_many_closed_chains_are_named_once_each(ledger: Ledger) -> None:
    for _ in range(12):
        ledger.chain().close()
    with ledger.database.reading() as connection:
        found = connection.execute(select(chains.c.heads).order_by(chains.c.number)).scalars()
        named = [len(json.loads(each)) for each in found]
    # The two that are open, the one that was closed since, and itself.
    assert named[-10:] == [4] * 10
    assert verified(ledger) == []


OPEN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from peerloan.database import Database
from peerloan.ledger import Chain, Seal
from peerloan.ledger.chain_heads import HeadFiles

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv[3]
if moment == "before the commit":
    write_announcement = HeadFiles.write_announcement
    HeadFiles.write_announcement = lambda *arguments: die(write_announcement(*arguments))
elif moment == "before its head":
    HeadFiles.write_head = die
elif moment == "before the newest number":
    HeadFiles.raise_newest = die
Chain(Database(sys.argv[1]), Seal(Path(sys.argv[2])))
"""


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
@pytest.mark.parametrize(
    "moment", ["before the commit", "before its head", "before the newest number"]
)
def test_a_writer_that_is_killed_as_it_begins_is_no_finding(
    ledger: Ledger, tmp_path: Path, moment: str, first: bool
) -> None:
    if first:
        ledger = Ledger(f"sqlite:///{tmp_path / 'new' / 'ledger.db'}", tmp_path / "new")
    command = [sys.executable, "-c", OPEN_AND_DIE, ledger.url, str(ledger.seal_folder), moment]
    for _ in range(2):
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert verified(ledger) == []
    chain = ledger.chain()
    append(chain, [record()])
    chain.close()
    assert verified(ledger) == []
    assert (head(ledger, chain.number).exists(), list(heads(ledger).glob(".*"))) == (True, [])


def test_a_chain_without_records_that_was_announced_alone_may_have_none(ledger: Ledger) -> None:
    """What was announced of a chain is no excuse once it has records."""
    chain = ledger.chain()
    announced = head(ledger, chain.number).with_suffix(".opening")
    announced.write_bytes(head(ledger, chain.number).read_bytes())
    append(chain, [record()])
    chain.close()
    head(ledger, chain.number).unlink()
    assert verified(ledger) == [("missing head", chain.number)]


def test_who_begins_after_all_was_removed_does_not_make_it_unseen(ledger: Ledger) -> None:
    all_but_the_key_removed(ledger)
    chain = ledger.chain()
    append(chain, [record()])
    chain.close()
    assert [kind for kind, _ in verified(ledger)] == ["missing head"]


def test_a_head_s_name_alone_chooses_no_chain_s_number(ledger: Ledger) -> None:
    newest = ledger.chain()
    append(newest, [record()])
    newest.close()
    made_up = head(ledger, 999_999_999)
    made_up.write_bytes(head(ledger, newest.number).read_bytes())
    chain = ledger.chain()
    append(chain, [record()])
    chain.close()
    assert chain.number == newest.number + 1
    made_up.unlink()
    assert verified(ledger) == []


class HeadBefore(msgspec.Struct, frozen=True):
    """A head as the release before reads it, and writes it."""

    chain: int
    seq: int
    mac: str
    opened: str
    time_ms: int
    closed: bool


def test_the_release_before_reads_the_heads(ledger: Ledger) -> None:
    for path in heads(ledger).glob("*.json"):
        assert msgspec.json.decode(path.read_bytes(), type=HeadBefore).chain == int(path.stem)


def before(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """A chain as the release before opened, wrote and closed it: it named open chains only."""
    with monkeypatch.context() as patched:
        patched.setattr(chain_opening, "head_of_itself", lambda number: (number, 0, "no MAC"))
        chain = ledger.chain()
        append(chain, [record() for _ in range(3)])
        chain.close()
    told = msgspec.json.decode(head(ledger, chain.number).read_bytes(), type=HeadBefore)
    head(ledger, chain.number).write_bytes(msgspec.json.encode(told))
    return chain


def test_chains_of_the_release_before_are_whole_and_are_named_from_now_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path)
    chain = before(ledger, monkeypatch)
    (ledger.seal_folder / "newest").unlink()
    assert verified(ledger) == [], "a release before wrote no number"
    ledger.chain().close()
    assert verified(ledger) == []
    cut_with_head(chain.number, 1)(ledger)
    assert verified(ledger) == [("cut-off end", 1), ("missing head", 1)]


def test_no_seal_s_file_is_waited_for(ledger: Ledger) -> None:
    """A pipe, that nobody writes into."""
    head(ledger, 2).unlink()
    os.mkfifo(head(ledger, 2))
    assert verified(ledger) == [("edited head", 2)]
    assert verify(ledger.database, ledger.seal).findings.totals["edited head"] == 1
