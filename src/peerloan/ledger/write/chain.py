"""A writer's chain of records: opened once, appended to in batches, each a transaction."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import insert, select, update

from peerloan import uuid7
from peerloan.clock import now_ms
from peerloan.database import tables
from peerloan.database.engine import Database
from peerloan.database.errors import LedgerUnavailable, RecordRefused
from peerloan.ledger.chain_heads import Head
from peerloan.ledger.records import Record, Version, values_of
from peerloan.ledger.seal import Seal, record_mac, record_name, values_digest, version_digest
from peerloan.ledger.write.chain_opening import HEAD_MS, open_chain
from peerloan.ledger.write.driver import Backend, Claim, Row
from peerloan.ledger.write.entries import Entry, First, Key, OtherRequest, Result

_SALT_BYTES = 16
# Why a writer's chain ends and another begins.
SET_BACK = "the clock was set back: a new chain begins, whose decisions are dated by it again"


class Chain:
    """An open chain and the connection that it is written by. For one thread at a time."""

    def __init__(self, database: Database, seal: Seal) -> None:
        """Open a chain; raises LedgerUnavailable."""
        # While no lock is held, which others would wait for.
        with _seal_errors():
            seal.files.check()
        self._database = database
        self._seal = seal
        self._versions: dict[Version, tuple[int, bytes]] = {}
        self._backend: Backend | None = _connect(database)
        self._session = self._backend.session
        self._head_id: bytes | None = None
        self._seq = 0
        # Whether the newest entries had keys: then the next ones may too.
        self._keyed = False
        try:
            with _seal_errors():
                self.number, opened_ms, self._opening = open_chain(database, seal)
            self._mac = self._opening
            # No record's id is below it.
            self._floor = uuid7.first_at(opened_ms - HEAD_MS).bytes
            # Only now may it have records: its head tells that it was opened.
            self._write_head(closed=False)
        except BaseException:
            self._backend.close()
            raise

    def expect(self) -> None:
        """Begin the next transaction while its decisions gather; raises nothing.

        PostgreSQL takes a while to begin, and whoever comes meanwhile is kept with the others.
        Where keys are used, it has to be begun in another way.
        """
        if self._backend is not None and not self._keyed:
            with contextlib.suppress(LedgerUnavailable, RecordRefused):
                self._backend.expect()

    def follows(self, record: Record) -> bool:
        """Whether a record may stand in this chain, whose ids rise. None may that is made after
        the clock was set back: it needs another chain.
        """
        return record.id >= (self._head_id or self._floor)

    def append(self, entries: Sequence[Entry]) -> list[Result]:
        """Keep entries, all in one transaction; returns what became of each.

        Raises LedgerUnavailable, and then none is kept; or RecordRefused, if the database refuses
        one of them: then append them one by one.
        """
        # Before the transaction begins: a new version is registered in one of its own.
        for version in {record.version for entry in entries for record in entry.records}:
            if version not in self._versions:
                number = register(self._database, version)
                self._versions[version] = number, version_digest(*version)
        backend = self._connected()
        try:
            return self._append(backend, entries)
        except LedgerUnavailable:
            self._disconnect()
            if self._database.is_sqlite:
                raise
            # A connection may have been cut while all else is well; and a commit whose answer got
            # lost may have been done.
            before = self._seq
            backend = self._connected()
            try:
                if self._seq > before:
                    return self._recovered(backend, entries)
                return self._append(backend, entries)
            except BaseException:
                self._disconnect()
                raise
        except BaseException:
            backend.rollback()
            raise

    def _connected(self) -> Backend:
        """The connection. A new one goes on from the newest record, once nothing can follow it."""
        if self._backend is None:
            backend = _connect(self._database)
            try:
                backend.end(self._session)
                last = backend.last(self.number, self._head_id or self._floor)
            except LedgerUnavailable:
                backend.close()
                raise
            if last is not None and last[1] > self._seq:
                self._head_id, self._seq, self._mac = last
            self._backend, self._session = backend, backend.session
        return self._backend

    def _disconnect(self) -> None:
        if self._backend is not None:
            self._backend.rollback()
            self._backend.close()
            self._backend = None

    def _append(self, backend: Backend, entries: Sequence[Entry]) -> list[Result]:
        claims: list[Claim] = [
            (entry.key, uuid7.milliseconds(entry.records[0].id), _joined(entry))
            for entry in entries
            if entry.key is not None
        ]
        self._keyed = bool(claims)
        if not claims:
            records = [record for entry in entries for record in entry.records]
            self._advance(backend.insert_alone(self._rows(records)))
            return [None] * len(entries)
        backend.begin()
        free = backend.claim(claims)
        results: list[Result] = []
        records = []
        for entry in entries:
            key = entry.key
            if key is None or (key.caller, key.key) in free:
                results.append(None)
                records += entry.records
            else:
                results.append(_used(key, *backend.claimed(key)))
        last = backend.insert(self._rows(records)) if records else None
        backend.commit()
        self._advance(last)
        return results

    def _rows(self, records: Sequence[Record]) -> Iterator[Row]:
        """The rows that carry the chain on, made while others are written."""
        salts = os.urandom(_SALT_BYTES * len(records))
        keyed, before, seq = self._seal.keyed, self._mac, self._seq
        for i, record in enumerate(records):
            salt = salts[_SALT_BYTES * i : _SALT_BYTES * (i + 1)]
            values, time_ms = values_of(record), uuid7.milliseconds(record.id)
            digest = values_digest(salt, values)
            number, version = self._versions[record.version]
            seq += 1
            name = record_name(record.id, time_ms, self.number, seq)
            before = record_mac(keyed, before, version, name, digest)
            place = (record.id, time_ms, self.number, seq, number)
            yield (*place, *values, salt, digest, before)

    def _advance(self, last: Row | None) -> None:
        if last is not None:
            self._head_id, self._seq, self._mac = last[0], last[3], last[-1]

    def _recovered(self, backend: Backend, entries: Sequence[Entry]) -> list[Result]:
        """What became of entries whose commit was done, though nobody could say so."""
        results: list[Result] = []
        for entry in entries:
            result: Result = None
            if entry.key is not None:
                request, kept = backend.claimed(entry.key)
                if kept != _joined(entry):
                    result = _used(entry.key, request, kept)
            results.append(result)
        return results

    def write_head(self) -> None:
        """Write the head down, in the database and outside of it; raises LedgerUnavailable."""
        self._write_head(closed=False)

    def close(self) -> None:
        """Write the last head down and close the connection; raises nothing."""
        with contextlib.suppress(LedgerUnavailable):
            self._connected()
            self._write_head(closed=True)
        self._disconnect()

    def _write_head(self, closed: bool) -> None:
        head = Head(
            *(self.number, self._seq, self._mac.hex(), self._opening.hex()),
            *(now_ms(), closed),
        )
        with self._database.writing() as connection:
            connection.execute(
                update(tables.chains)
                .where(tables.chains.c.number == self.number)
                .values(
                    seen_ms=head.time_ms,
                    head_id=None if self._head_id is None else UUID(bytes=self._head_id),
                    head_seq=self._seq,
                    head_mac=self._mac,
                    closed=closed,
                )
            )
        with _seal_errors():
            self._seal.files.write(head)
            self._seal.files.raise_newest(self.number)


def _connect(database: Database) -> Backend:
    """A connection of its own, by the database's own driver; the other one is not even loaded."""
    if database.is_sqlite:
        from peerloan.ledger.write.sqlite_driver import Sqlite

        return Sqlite(database)
    from peerloan.ledger.write.postgres_driver import connect

    return connect(database)


@contextlib.contextmanager
def _seal_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LedgerUnavailable(f"the chain's head can't be written: {error}") from None


def register(database: Database, version: Version) -> int:
    """A model version's number in the ledger, which it gets with its first decision."""
    table = tables.versions
    known = select(table.c.number).where(
        table.c.version == version.version, table.c.digest == version.digest
    )
    for _ in range(3):  # another writer may be about to do the same
        with database.reading() as connection:
            number = connection.execute(known).scalar()
        if number is not None:
            return int(number)
        with contextlib.suppress(LedgerUnavailable), database.writing() as connection:
            connection.execute(insert(table).values(version._asdict()))
    raise LedgerUnavailable("the model version can't be registered")


def _used(key: Key, request: bytes, kept: bytes) -> Result:
    """What became of an entry whose key was used before."""
    if request != key.request:
        return OtherRequest()
    return First([kept[i : i + 16] for i in range(0, len(kept), 16)])


def _joined(entry: Entry) -> bytes:
    return b"".join(record.id for record in entry.records)
