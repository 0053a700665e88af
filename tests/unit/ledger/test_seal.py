"""The writer seals records as the seal's own functions say, by which they are verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from helpers.ledgers import Ledger, new_id, now_ms
from peerloan.database import LedgerError, tables
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.audit.verify import verify
from peerloan.ledger.records import VALUES, sealed_values
from peerloan.ledger.seal import pack_place, record_mac, values_digest, version_digest

# What both databases can hold.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
# A margin is never −0 (`arithmetic.to_unit`), whose sign SQLite would not keep.
NUMBER = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
RECORDS = st.builds(
    Record,
    id=st.builds(lambda: new_id(now_ms())),
    version=st.builds(Version, st.sampled_from(["a", "b"]), st.just("d" * 64), st.just(0.05)),
    source=TEXT,
    caller=TEXT,
    request_id=TEXT,
    idempotency_key=st.none() | TEXT,
    loan_id=st.none() | TEXT,
    inputs=TEXT,
    margin=NUMBER,
    probability=NUMBER,
    late=st.booleans(),
    band=st.integers(0, 3),
    reasons=st.none() | TEXT,
    warnings=st.none() | TEXT,
)


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    return Ledger(ledger_url, tmp_path)


@pytest.fixture
def chain(ledger: Ledger) -> Iterator[Chain]:
    chain = ledger.chain()
    yield chain
    chain.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORDS, min_size=1, max_size=5))
def test_records_are_sealed_and_kept_as_the_seal_says(
    ledger: Ledger, chain: Chain, records: list[Record]
) -> None:
    table = tables.decisions
    with ledger.database.reading() as connection:
        opening = select(tables.chains.c.mac).where(tables.chains.c.number == chain.number)
        last = select(table.c.seq, table.c.mac).order_by(table.c.seq.desc()).limit(1)
        seq, before = connection.execute(last).first() or (
            0,
            connection.execute(opening).scalar_one(),
        )
    assert chain.append([Entry(records)]) == [None]
    with ledger.database.reading() as connection:
        rows = connection.execute(
            select(table).where(table.c.seq > seq).order_by(table.c.seq)
        ).all()
    assert len(rows) == len(records)
    for record, row in zip(records, rows, strict=True):
        seq += 1
        assert row.id.bytes == record.id
        assert tuple(getattr(row, name) for name in VALUES) == sealed_values(record)
        assert row.digest == values_digest(row.salt, sealed_values(record))
        place = pack_place(record.id, int.from_bytes(record.id[:6]), chain.number, seq)
        before = record_mac(
            ledger.seal.mac_template, before, version_digest(*record.version), place, row.digest
        )
        assert row.mac == before


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORDS, min_size=1, max_size=5))
def test_what_was_kept_verifies(ledger: Ledger, chain: Chain, records: list[Record]) -> None:
    chain.append([Entry(records)])
    assert verify(ledger.database, ledger.seal).findings.shown() == []


def test_a_seal_that_is_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="contains no seal's key"):
        Seal.existing(tmp_path / "seal")
    assert not (tmp_path / "seal").exists()
    made = Seal(tmp_path / "seal")
    assert Seal.existing(tmp_path / "seal").key == made.key
