"""A writer's chain of records: opened once, then extended by one transaction a batch."""

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
from peerloan.ledger.records import Record, Version, sealed_values
from peerloan.ledger.seal import Seal, record_mac, record_name, values_digest, version_digest
from peerloan.ledger.write.chain_opening import HEAD_MS, open_chain
from peerloan.ledger.write.driver import Row, WriterDriver
from peerloan.ledger.write.entries import Entry, OtherRequest, RepeatedRequest, Result
from peerloan.ledger.write.idempotency import Claim, Key

_SALT_BYTES = 16
# Log line: why a writer closes its chain and opens another.
SET_BACK = "the clock was set back: opening a new chain, whose decisions have the new time"


class Chain:
    """An open chain and its connection. Not thread-safe."""

    def __init__(self, database: Database, seal: Seal) -> None:
        """Open a chain. Raises LedgerUnavailable."""
        # Checked before a lock is held that others would wait for.
        with _seal_errors():
            seal.files.check()
        self._database = database
        self._seal = seal
        self._versions: dict[Version, tuple[int, bytes]] = {}
        self._backend: WriterDriver | None = _connect(database)
        self._session = self._backend.session
        self._head_id: bytes | None = None
        self._seq = 0
        # Whether the newest entries had idempotency keys; then the next ones may have some too.
        self._keyed = False
        try:
            with _seal_errors():
                self.number, opened_ms, self._opening = open_chain(database, seal)
            self._mac = self._opening
            # Lower bound of the ids of this chain's records.
            self._floor = uuid7.first_at(opened_ms - HEAD_MS).bytes
            # A chain may have records only after its head was written.
            self._write_head(closed=False)
        except BaseException:
            self._backend.close()
            raise

    def begin_early(self) -> None:
        """Begin the next transaction in advance, while its decisions gather. Raises nothing.

        PostgreSQL takes a while to begin one. Transactions with idempotency keys begin in another
        way, so nothing is done if keys are in use.
        """
        if self._backend is not None and not self._keyed:
            with contextlib.suppress(LedgerUnavailable, RecordRefused):
                self._backend.begin_early()

    def follows(self, record: Record) -> bool:
        """Return whether a record's id continues this chain, whose ids rise.

        A record made after the clock was set back does not: it needs another chain.
        """
        return record.id >= (self._head_id or self._floor)

    def append(self, entries: Sequence[Entry]) -> list[Result]:
        """Store entries in one transaction. Returns the result of each.

        Raises LedgerUnavailable; then none is stored. Raises RecordRefused if the database refuses
        one of them; then append them one by one.
        """
        # Before the transaction: a new version is registered in a transaction of its own.
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
            # Perhaps only the connection was lost. The commit may have succeeded even though its
            # answer was lost.
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

    def _connected(self) -> WriterDriver:
        """Return the connection. A new one continues from the newest record in the database.

        It first makes sure that the lost connection writes nothing more.
        """
        if self._backend is None:
            backend = _connect(self._database)
            try:
                backend.terminate(self._session)
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

    def _append(self, backend: WriterDriver, entries: Sequence[Entry]) -> list[Result]:
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
        """Yield the next rows of the chain. They are made while earlier ones are written."""
        salts = os.urandom(_SALT_BYTES * len(records))
        keyed, before, seq = self._seal.keyed, self._mac, self._seq
        for i, record in enumerate(records):
            salt = salts[_SALT_BYTES * i : _SALT_BYTES * (i + 1)]
            values, time_ms = sealed_values(record), uuid7.milliseconds(record.id)
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

    def _recovered(self, backend: WriterDriver, entries: Sequence[Entry]) -> list[Result]:
        """Return the results of entries whose commit succeeded although its answer was lost."""
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
        """Write the head, in the database and outside it. Raises LedgerUnavailable."""
        self._write_head(closed=False)

    def close(self) -> None:
        """Write the last head and close the connection. Raises nothing."""
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


def _connect(database: Database) -> WriterDriver:
    """Connect with the driver of the database; the other driver is not imported."""
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
    """Return a model version's number in the ledger; register it if it is new."""
    table = tables.versions
    known = select(table.c.number).where(
        table.c.version == version.version, table.c.digest == version.digest
    )
    for _ in range(3):  # another writer may register it at the same time
        with database.reading() as connection:
            number = connection.execute(known).scalar()
        if number is not None:
            return int(number)
        with contextlib.suppress(LedgerUnavailable), database.writing() as connection:
            connection.execute(insert(table).values(version._asdict()))
    raise LedgerUnavailable("the model version can't be registered")


def _used(key: Key, request: bytes, kept: bytes) -> Result:
    """Return the result of an entry whose key was used before."""
    if request != key.request:
        return OtherRequest()
    return RepeatedRequest([kept[i : i + 16] for i in range(0, len(kept), 16)])


def _joined(entry: Entry) -> bytes:
    return b"".join(record.id for record in entry.records)
