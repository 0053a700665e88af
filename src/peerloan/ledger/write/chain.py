"""A writer's chain of records: opened once, then extended by one transaction for each batch.

The MAC of each record covers the MAC of the record before it (see `peerloan.ledger.seal`).
"""

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
from peerloan.ledger.seal import Seal, pack_place, record_mac, values_digest, version_digest
from peerloan.ledger.write.chain_opening import HEAD_INTERVAL_MS, open_chain
from peerloan.ledger.write.driver import Row, WriterDriver
from peerloan.ledger.write.entries import Entry, KeyOfOtherRequest, RepeatedRequest, Result
from peerloan.ledger.write.idempotency import Claim, Key

_SALT_BYTES = 16
# Log line: why a writer closes its chain and opens another.
CLOCK_SET_BACK = "the clock was set back: opening a new chain, whose decisions have the new time"


class Chain:
    """An open chain and its database connection.

    Thread safety: none; only the thread of its writer uses it. Ownership: it owns the connection
    and borrows the database and the seal. `close` writes its last head; a chain that is not closed
    counts as abandoned after some minutes (`chain_opening.DEAD_MS`).
    """

    def __init__(self, database: Database, seal: Seal) -> None:
        """Open a chain. Raises LedgerUnavailable, LostSeal."""
        # Check this first: opening takes a lock that other writers wait for.
        with _seal_errors():
            seal.files.check_writable()
        self._database = database
        self._seal = seal
        # The number and digest of each registered model version.
        self._versions: dict[Version, tuple[int, bytes]] = {}
        self._driver: WriterDriver | None = _connect(database)
        self._session = self._driver.session
        # The newest record: its id, number and MAC.
        self._head_id: bytes | None = None
        self._head_seq = 0
        # Whether the newest entries had idempotency keys; if so, the next ones may have some too.
        self._keys_in_use = False
        try:
            with _seal_errors():
                self.number, opened_ms, self._opening_mac = open_chain(database, seal)
            self._head_mac = self._opening_mac
            # Lower bound of the ids of this chain's records.
            self._lowest_id = uuid7.first_at(opened_ms - HEAD_INTERVAL_MS).bytes
            # A chain may have records only after its head was written.
            self._write_head(closed=False)
        except BaseException:
            self._driver.close()
            raise

    def begin_early(self) -> None:
        """Begin the next transaction before its decisions are complete. Raises nothing.

        PostgreSQL takes a while to begin one. A transaction with idempotency keys begins in another
        way, so this does nothing if the newest entries had keys.
        """
        if self._driver is not None and not self._keys_in_use:
            with contextlib.suppress(LedgerUnavailable, RecordRefused):
                self._driver.begin_early()

    def accepts(self, record: Record) -> bool:
        """Return whether a record's id is above those in this chain, whose ids must rise.

        The id of a decision that was made after the clock was set back is not: open another chain.
        """
        return record.id >= (self._head_id or self._lowest_id)

    def append(self, entries: Sequence[Entry]) -> list[Result]:
        """Store entries in one transaction. Returns the result of each entry, in order.

        Raises RecordRefused if the database refuses one of them, or KeyInUse; then none is stored,
        and the caller may append them one by one. Raises LedgerUnavailable; the entries may be
        stored then if the connection was lost during the commit.
        """
        # Before the transaction: a new version is registered in a transaction of its own.
        for version in {record.version for entry in entries for record in entry.records}:
            if version not in self._versions:
                number = register_version(self._database, version)
                self._versions[version] = number, version_digest(*version)
        driver = self._connected()
        try:
            return self._append(driver, entries)
        except LedgerUnavailable:
            self._disconnect()
            if self._database.is_sqlite:
                raise
            # Perhaps only the connection was lost, and the commit may have succeeded.
            previous_seq = self._head_seq
            driver = self._connected()
            try:
                if self._head_seq > previous_seq:
                    return self._stored_results(driver, entries)
                return self._append(driver, entries)
            except BaseException:
                self._disconnect()
                raise
        except BaseException:
            driver.rollback()
            raise

    def _connected(self) -> WriterDriver:
        """Return the connection; open a new one if it was lost.

        Then make sure that the lost connection writes nothing more, and continue from the chain's
        newest record in the database.
        """
        if self._driver is None:
            driver = _connect(self._database)
            try:
                driver.terminate(self._session)
                newest = driver.newest_record(self.number, self._head_id or self._lowest_id)
            except LedgerUnavailable:
                driver.close()
                raise
            if newest is not None and newest[1] > self._head_seq:
                self._head_id, self._head_seq, self._head_mac = newest
            self._driver, self._session = driver, driver.session
        return self._driver

    def _disconnect(self) -> None:
        if self._driver is not None:
            self._driver.rollback()
            self._driver.close()
            self._driver = None

    def _append(self, driver: WriterDriver, entries: Sequence[Entry]) -> list[Result]:
        claims: list[Claim] = [
            (entry.key, uuid7.milliseconds(entry.records[0].id), _joined_ids(entry))
            for entry in entries
            if entry.key is not None
        ]
        self._keys_in_use = bool(claims)
        if not claims:
            records = [record for entry in entries for record in entry.records]
            self._move_head(driver.insert_alone(self._sealed_rows(records)))
            return [None] * len(entries)
        driver.begin()
        claimed = driver.claim_keys(claims)
        results: list[Result] = []
        records = []
        for entry in entries:
            key = entry.key
            if key is None or (key.caller, key.key) in claimed:
                results.append(None)
                records += entry.records
            else:
                results.append(_result_of_used_key(key, *driver.read_claim(key)))
        last = driver.insert(self._sealed_rows(records)) if records else None
        driver.commit()
        self._move_head(last)
        return results

    def _sealed_rows(self, records: Sequence[Record]) -> Iterator[Row]:
        """Yield the next rows of the chain. Each is sealed while earlier ones are written."""
        salts = os.urandom(_SALT_BYTES * len(records))
        template, mac, seq = self._seal.mac_template, self._head_mac, self._head_seq
        for i, record in enumerate(records):
            salt = salts[_SALT_BYTES * i : _SALT_BYTES * (i + 1)]
            values, time_ms = sealed_values(record), uuid7.milliseconds(record.id)
            digest = values_digest(salt, values)
            number, version = self._versions[record.version]
            seq += 1
            place = pack_place(record.id, time_ms, self.number, seq)
            mac = record_mac(template, mac, version, place, digest)
            yield (record.id, time_ms, self.number, seq, number, *values, salt, digest, mac)

    def _move_head(self, last: Row | None) -> None:
        """Make the last stored row the chain's newest record."""
        if last is not None:
            self._head_id, self._head_seq, self._head_mac = last[0], last[3], last[-1]

    def _stored_results(self, driver: WriterDriver, entries: Sequence[Entry]) -> list[Result]:
        """Return the results of entries whose commit succeeded, though the connection was lost."""
        results: list[Result] = []
        for entry in entries:
            result: Result = None
            if entry.key is not None:
                request, ids = driver.read_claim(entry.key)
                if ids != _joined_ids(entry):
                    result = _result_of_used_key(entry.key, request, ids)
            results.append(result)
        return results

    def write_head(self) -> None:
        """Write the head to the database and to the seal's folder. Raises LedgerUnavailable."""
        self._write_head(closed=False)

    def close(self) -> None:
        """Write the last head and close the connection. Raises nothing."""
        with contextlib.suppress(LedgerUnavailable):
            self._connected()
            self._write_head(closed=True)
        self._disconnect()

    def _write_head(self, closed: bool) -> None:
        head = Head(
            *(self.number, self._head_seq, self._head_mac.hex(), self._opening_mac.hex()),
            *(now_ms(), closed),
        )
        with self._database.writing() as connection:
            connection.execute(
                update(tables.chains)
                .where(tables.chains.c.number == self.number)
                .values(
                    seen_ms=head.time_ms,
                    head_id=None if self._head_id is None else UUID(bytes=self._head_id),
                    head_seq=self._head_seq,
                    head_mac=self._head_mac,
                    closed=closed,
                )
            )
        with _seal_errors():
            self._seal.files.write_head(head)
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
    """Raise a fault of the seal's files as LedgerUnavailable."""
    try:
        yield
    except OSError as error:
        raise LedgerUnavailable(f"the chain's head can't be written: {error}") from None


def register_version(database: Database, version: Version) -> int:
    """Return a model version's number in the ledger; register it if it is new.

    Raises LedgerUnavailable.
    """
    table = tables.versions
    numbers = select(table.c.number).where(
        table.c.version == version.version, table.c.digest == version.digest
    )
    for _ in range(3):  # another writer may register it at the same time
        with database.reading() as connection:
            number = connection.execute(numbers).scalar()
        if number is not None:
            return int(number)
        with contextlib.suppress(LedgerUnavailable), database.writing() as connection:
            connection.execute(insert(table).values(version._asdict()))
    raise LedgerUnavailable("the model version can't be registered")


def _result_of_used_key(key: Key, request: bytes, ids: bytes) -> Result:
    """Return the result of an entry whose key another request, or the same one, used before."""
    if request != key.request:
        return KeyOfOtherRequest()
    return RepeatedRequest([ids[i : i + 16] for i in range(0, len(ids), 16)])


def _joined_ids(entry: Entry) -> bytes:
    return b"".join(record.id for record in entry.records)
