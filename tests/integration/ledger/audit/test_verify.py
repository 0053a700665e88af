"""`peerloan ledger verify`: what was changed behind the ledger's back is named, and no more."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from sqlalchemy import Connection, delete, insert, select, text, update

from helpers.commands import Run
from helpers.ledgers import Ledger, append, new_id, now_ms, record
from peerloan.cli.console import CommandError
from peerloan.cli.main import peerloan
from peerloan.database import RecordRefused, tables
from peerloan.ledger import Chain, Entry, Key, RepeatedRequest, Seal
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.records import VALUES
from peerloan.ledger.seal import values_digest

Tamper = Callable[[Connection], None]
Where = tuple[str, int | None, int | None, int | None]
decisions, chains, versions = tables.decisions, tables.chains, tables.versions
ERASED = dict.fromkeys((*VALUES, "salt"))


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    """Three chains: one still open, whose head was written down at record 8 of 10 and which the
    third one's opening names at record 6; two closed ones of 10 and of 5 records.
    """
    made = Ledger(ledger_url, tmp_path)
    first, second = made.chain(), made.chain()
    for _ in range(3):
        append(first, [record(), record()])
        append(second, [record(), record()])
    third = made.chain()
    append(first, [record(), record()])
    append(third, [record() for _ in range(5)])
    first.write_head()
    append(second, [record() for _ in range(4)])
    append(first, [record(), record()])
    second.close()
    third.close()
    return made


def verified(ledger: Ledger) -> list[Where]:
    """What the command names: kind, chain, first and last number in it."""
    settings = {"PEERLOAN_LEDGER": ledger.url, "PEERLOAN_SEAL": str(ledger.seal_folder)}
    done = CliRunner().invoke(peerloan, ["ledger", "verify", "--json"], env=settings)
    report = json.loads(done.stdout)
    found = [
        (each["kind"], each.get("chain"), each.get("first_seq"), each.get("last_seq"))
        for each in report["findings"]
    ]
    assert sum(report["totals"].values()) == len(found)
    assert isinstance(done.exception, CommandError) == bool(found)
    return found


def row(connection: Connection, chain: int, seq: int) -> dict[str, Any]:
    found = select(decisions).where(decisions.c.chain == chain, decisions.c.seq == seq)
    return dict(connection.execute(found).one()._mapping)


def change(connection: Connection, chain: int, seq: int, /, **values: object) -> None:
    where = (decisions.c.chain == chain, decisions.c.seq == seq)
    assert connection.execute(update(decisions).where(*where).values(values)).rowcount == 1


def remove(connection: Connection, chain: int, first: int, last: int) -> None:
    gone = delete(decisions).where(decisions.c.chain == chain)
    connection.execute(gone.where(decisions.c.seq.between(first, last)))


def copy(connection: Connection, chain: int, seq: int, /, **values: object) -> None:
    """Add a record that is another one's copy but for some values."""
    connection.execute(insert(decisions).values(row(connection, chain, seq) | values))


def with_new_digest(connection: Connection) -> None:
    """As somebody edits a value who knows how its digest is made."""
    found = row(connection, 1, 4) | {"probability": 0.001}
    digest = values_digest(found["salt"], tuple(found[name] for name in VALUES))
    change(connection, 1, 4, probability=0.001, digest=digest)


def last_with_new_digest(connection: Connection) -> None:
    found = row(connection, 2, 10) | {"loan_id": "another"}
    digest = values_digest(found["salt"], tuple(found[name] for name in VALUES))
    change(connection, 2, 10, loan_id="another", digest=digest)


def swap_inputs(connection: Connection) -> None:
    one, other = row(connection, 1, 3), row(connection, 2, 7)
    change(connection, 1, 3, **{name: other[name] for name in (*VALUES, "salt", "digest")})
    change(connection, 2, 7, **{name: one[name] for name in (*VALUES, "salt", "digest")})


def add_behind(connection: Connection) -> None:
    copy(connection, 2, 10, id=UUID(bytes=new_id(now_ms())), seq=11)


def add_doubled(connection: Connection) -> None:
    copy(connection, 2, 10, id=UUID(bytes=new_id(now_ms())))


def add_between(connection: Connection) -> None:
    """Before the record whose number it has."""
    copy(connection, 2, 5, id=UUID(int=row(connection, 2, 5)["id"].int - 1))


def cut_and_hide(connection: Connection) -> None:
    """Cut off an end, and the head in the database with it."""
    remove(connection, 2, 8, 10)
    last = row(connection, 2, 7)
    values = {"head_seq": 7, "head_mac": last["mac"], "head_id": last["id"]}
    connection.execute(update(chains).where(chains.c.number == 2).values(values))


def chain_of(number: int, /, **values: object) -> Tamper:
    def edit(connection: Connection) -> None:
        connection.execute(update(chains).where(chains.c.number == number).values(values))

    return edit


def without_chain(number: int, *, records: bool) -> Tamper:
    def edit(connection: Connection) -> None:
        connection.execute(delete(chains).where(chains.c.number == number))
        if records:
            connection.execute(delete(decisions).where(decisions.c.chain == number))

    return edit


def version_of(**values: object) -> Tamper:
    def edit(connection: Connection) -> None:
        connection.execute(update(versions).where(versions.c.number == 1).values(values))

    return edit


def other_version(connection: Connection) -> None:
    change(connection, 1, 5, version=3 - row(connection, 1, 5)["version"])


def negated(connection: Connection) -> None:
    change(connection, 1, 5, late=not row(connection, 1, 5)["late"])


def edit(chain: int, seq: int, /, **values: object) -> Tamper:
    return lambda connection: change(connection, chain, seq, **values)


def cut(chain: int, first: int, last: int) -> Tamper:
    return lambda connection: remove(connection, chain, first, last)


def without_version(connection: Connection) -> None:
    connection.execute(delete(versions).where(versions.c.number == 2))


def several(*tampers: Tamper) -> Tamper:
    def tamper(connection: Connection) -> None:
        for each in tampers:
            each(connection)

    return tamper


def edited(chain: int, seq: int) -> Where:
    return "edited record", chain, seq, seq


TAMPERING: dict[str, tuple[Tamper, list[Where]]] = {
    "a value": (edit(1, 5, probability=0.01), [edited(1, 5)]),
    "the decision": (negated, [edited(1, 5)]),
    "a value erased": (edit(2, 3, loan_id=None), [edited(2, 3)]),
    "the inputs": (edit(3, 1, inputs="{}"), [edited(3, 1)]),
    "the salt": (edit(1, 5, salt=bytes(16)), [edited(1, 5)]),
    "only the salt erased": (edit(1, 5, salt=None), [edited(1, 5)]),
    "the digest": (edit(1, 5, digest=bytes(32)), [edited(1, 5)]),
    "the mac": (edit(1, 5, mac=bytes(32)), [edited(1, 5)]),
    "the last one's mac": (edit(2, 10, mac=bytes(32)), [edited(2, 10)]),
    "the time": (edit(1, 5, time_ms=1), [edited(1, 5)]),
    "the time, to one before 1970": (edit(1, 5, time_ms=-1), [edited(1, 5)]),
    "the model version": (other_version, [edited(1, 5)]),
    "the model version, to none": (edit(1, 5, version=77), [edited(1, 5)]),
    "the number in the chain": (edit(1, 5, seq=500), [edited(1, 5)]),
    "the number, to a negative one": (edit(1, 5, seq=-3), [edited(1, 5)]),
    "the chain": (edit(1, 5, chain=2), [edited(1, 5)]),
    "the chain, to none": (edit(1, 5, chain=55), [edited(1, 5)]),
    "a value and its digest": (with_new_digest, [edited(1, 4)]),
    "the last one's value and its digest": (last_with_new_digest, [edited(2, 10)]),
    "two neighbours": (
        several(edit(2, 5, mac=bytes(32)), edit(2, 6, mac=bytes(32))),
        [edited(2, 5), edited(2, 6)],
    ),
    "two records' values exchanged": (swap_inputs, [edited(1, 3), edited(2, 7)]),
    "a record removed": (cut(1, 5, 5), [("removed record", 1, 5, 5)]),
    "records removed": (cut(2, 3, 6), [("removed record", 2, 3, 6)]),
    "the first removed": (cut(3, 1, 1), [("removed record", 3, 1, 1)]),
    "every other one removed": (
        several(cut(2, 4, 4), cut(2, 6, 6)),
        [("removed record", 2, 4, 4), ("removed record", 2, 6, 6)],
    ),
    "a record added behind": (add_behind, [("added record", 2, 11, 11)]),
    "a record added with a number that is there": (add_doubled, [("added record", 2, 10, 10)]),
    "a record added between": (add_between, [("added record", 2, 5, 5)]),
    "an end cut off": (cut(2, 8, 10), [("cut-off end", 2, 8, 10)]),
    "an end cut off, and the database's head": (cut_and_hide, [("cut-off end", 2, 8, 10)]),
    "an open chain's end": (cut(1, 7, 10), [("cut-off end", 1, 7, 8)]),
    "all of a chain": (cut(3, 1, 5), [("cut-off end", 3, 1, 5)]),
    "a head in the database": (
        chain_of(2, head_mac=bytes(32)),
        [("cut-off end", 2, 10, 10)],
    ),
    "a chain's row removed": (
        without_chain(2, records=False),
        [("missing chain", 2, None, None)],
    ),
    "a chain removed": (without_chain(2, records=True), [("missing chain", 2, None, None)]),
    "the first chain removed": (without_chain(1, records=True), [("missing chain", 1, None, None)]),
    "the newest chain removed": (
        without_chain(3, records=True),
        [("missing chain", 3, None, None)],
    ),
    "an opening's heads": (chain_of(3, heads="[]"), [("edited chain", 3, None, None)]),
    "an opening's heads, to no JSON": (chain_of(3, heads="["), [("edited chain", 3, None, None)]),
    "an opening's time": (chain_of(1, opened_ms=1), [("edited chain", 1, None, None)]),
    "an opening's release": (chain_of(2, release="0.0.9"), [("edited chain", 2, None, None)]),
    "an opening's mac": (chain_of(2, mac=bytes(32)), [("edited chain", 2, None, None)]),
    "a version's threshold": (version_of(threshold=0.5), [("edited version", None, None, None)]),
    "a version's digest": (version_of(digest="c" * 64), [("edited version", None, None, None)]),
    "a version's row removed": (
        without_version,
        [("edited version", None, None, None)],
    ),
    "values erased without a purge": (edit(1, 5, **ERASED), [("erased values", 1, None, None)]),
    "edits of several kinds": (
        several(edit(1, 2, late=None), cut(2, 4, 4), add_doubled),
        [edited(1, 2), ("removed record", 2, 4, 4), ("added record", 2, 10, 10)],
    ),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_named_and_nothing_else(ledger: Ledger, what: str) -> None:
    tamper, expected = TAMPERING[what]
    with ledger.database.writing() as connection:
        tamper(connection)
    assert verified(ledger) == expected


def test_a_ledger_as_it_was_written_is_said_to_be(run: Run, ledger: Ledger) -> None:
    done = run("ledger", "verify", ledger=ledger.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "25 records in 3 chains: all as they were written\n"


def test_what_was_changed_is_told_in_sentences(run: Run, ledger: Ledger) -> None:
    with ledger.database.writing() as connection:
        changed = row(connection, 1, 5)["id"]
        change(connection, 1, 5, caller="another")
        remove(connection, 2, 4, 6)
    done = run("ledger", "verify", ledger=ledger.url)
    assert done.returncode == 1
    assert f"edited record: chain 1, record 5 ({changed}): its values do not match" in done.stdout
    assert "removed record: chain 2, records 4 to 6 are gone, after " in done.stdout
    assert "22 records in 3 chains\n" in done.stdout
    assert (
        "the records differ from what was written: 1 × edited record, 1 × removed record"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_of_many_the_first_are_told_and_all_are_counted(run: Run, ledger: Ledger) -> None:
    append(ledger.chain(), [record() for _ in range(60)])
    with ledger.database.writing() as connection:
        connection.execute(update(decisions).where(decisions.c.chain == 4).values(loan_id="x"))
    done = run("ledger", "verify", ledger=ledger.url)
    assert done.stdout.count("edited record: chain 4") == 20
    assert "edited record: and 40 more\n" in done.stdout
    report = json.loads(run("ledger", "verify", "--json", ledger=ledger.url).stdout)
    assert (report["totals"], len(report["findings"])) == ({"edited record": 60}, 20)


def test_writers_that_were_killed_leave_a_whole_ledger(ledger: Ledger) -> None:
    killed = [ledger.chain() for _ in range(3)]
    for chain in killed:  # and nobody closes it
        append(chain, [record(), record()])
    assert verified(ledger) == []


def test_what_was_refused_or_repeated_leaves_a_whole_ledger(ledger: Ledger) -> None:
    chain = ledger.chain()
    kept = record()
    append(chain, [kept])
    with pytest.raises(RecordRefused):
        chain.append([Entry([record()]), Entry([record(id=kept.id)])])
    key = Key.of("app", "key-1", b"a body")
    first = record(idempotency_key="key-1")
    assert chain.append([Entry([first], key), Entry([record()])]) == [None, None]
    assert chain.append([Entry([record()], key), Entry([record()])]) == [
        RepeatedRequest([first.id]),
        None,
    ]
    chain.close()
    assert verified(ledger) == []
    with ledger.database.reading() as connection:
        seqs = select(decisions.c.seq).where(decisions.c.chain == 4).order_by(decisions.c.seq)
        assert list(connection.execute(seqs).scalars()) == [1, 2, 3, 4]


def test_a_ledger_that_is_written_to_meanwhile_is_whole(ledger: Ledger) -> None:
    stop = threading.Event()
    written = []

    def write(chain: Chain) -> None:
        while not stop.is_set():
            append(chain, [record() for _ in range(7)])
            chain.write_head()
            written.append(chain.number)
            if len(written) % 20 == 0:
                chain.close()
                chain = ledger.chain()
        chain.close()

    threads = [threading.Thread(target=write, args=(ledger.chain(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        reports = [verify(ledger.database, ledger.seal) for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [report.findings.shown() for report in reports] == [[]] * 10
    assert reports[-1].records > reports[0].records
    assert verified(ledger) == []


def test_text_that_is_none_and_numbers_that_are_none_are_named(run: Run, tmp_path: Path) -> None:
    """SQLite takes anything."""
    url = f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}"
    ledger = Ledger(url, tmp_path)
    chain = ledger.chain()
    append(chain, [record() for _ in range(9)])
    chain.close()
    with ledger.database.writing() as connection:
        for what in (
            "loan_id = CAST(x'ff' AS TEXT) WHERE seq = 2",
            "late = 7 WHERE seq = 4",
            "digest = 'text' WHERE seq = 6",
            "probability = 'text' WHERE seq = 8",
        ):
            connection.execute(text(f"UPDATE decisions SET {what}"))
    assert verified(ledger) == [
        edited(1, 2),
        edited(1, 4),
        edited(1, 8),
        ("removed record", 1, 6, 6),
        ("added record", None, None, None),
    ]


def test_another_seal_is_told_from_tampering(ledger: Ledger, tmp_path: Path) -> None:
    ledger.seal_folder = tmp_path / "another"
    Seal(ledger.seal_folder)
    assert verified(ledger) == [("foreign seal", None, None, None)]


def test_without_a_seal_or_a_ledger_there_is_a_clear_error(
    run: Run, ledger_url: str, tmp_path: Path
) -> None:
    done = run("ledger", "verify", ledger=ledger_url)
    assert (done.returncode, "peerloan ledger upgrade" in done.stderr) == (1, True)
    run("ledger", "upgrade", ledger=ledger_url)
    done = run("ledger", "verify", ledger=ledger_url)
    assert (done.returncode, "contains no seal's key" in done.stderr) == (1, True)
    assert not (tmp_path / "peerloan-seal").exists()


def test_a_ledger_without_records_is_whole(ledger_url: str, tmp_path: Path) -> None:
    ledger = Ledger(ledger_url, tmp_path)
    assert verified(ledger) == []
    ledger.chain()
    assert verified(ledger) == []
