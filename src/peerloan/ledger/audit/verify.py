"""Checks the whole ledger: every record must be there, as its writer left it."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, func, select, text

from peerloan import uuid7
from peerloan.database import tables
from peerloan.database.engine import Database
from peerloan.database.snapshot import snapshot
from peerloan.formatting import plural
from peerloan.ledger.audit.chain_openings import ChainWalks, SealFiles
from peerloan.ledger.audit.chain_walk import ChainRecord, ChainWalk, SealedVersion
from peerloan.ledger.audit.findings import SHOWN, AuditFinding, Findings
from peerloan.ledger.audit.raw_rows import raw_records, take_any_text
from peerloan.ledger.records import COLUMNS, VALUES
from peerloan.ledger.seal import Seal, record_mac, record_name, values_digest, version_digest

_FIRST = COLUMNS.index(VALUES[0])
_LATE = COLUMNS.index("late")
_ERASED = (None,) * len(VALUES)
# SQLite has no booleans. Any other value was not written by a writer.
_BOOLEANS = {0: False, 1: True}
_NOT_FITTING = "its values do not fit their digest"
_VERSIONS = text("SELECT number, version, digest, threshold FROM versions")
_PURGES = text("SELECT number, time_ms, before_ms, decisions, who, mac FROM purges ORDER BY number")
# Records between two calls of `progress`.
_PROGRESS_RECORDS = 10_000


class AuditReport(NamedTuple):
    """The result of a check."""

    records: int
    chains: int
    # Records whose values were purged.
    erased: int
    findings: Findings


def verify(
    database: Database, seal: Seal, progress: Callable[[float], None] = lambda _: None
) -> AuditReport:
    """Check the whole ledger in one snapshot; writers may go on meanwhile.

    Raises LedgerError if the database or the seal can't be read.
    """
    # Read before the snapshot: a head is written after its record, so none is ahead of the table.
    written = SealFiles.read(seal)
    with snapshot(database) as connection:
        take_any_text(connection)
        total = connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
        check = _Check(connection, seal, written)
        for seen in check.records(raw_records(connection)):
            progress(seen / total)
        return check.report()


class _Check:
    def __init__(self, connection: Connection, seal: Seal, written: SealFiles) -> None:
        self._keyed = seal.keyed
        self._findings = Findings()
        self._records = self._erased = 0
        self._versions: dict[int, SealedVersion] = {
            row.number: _sealed(*row) for row in connection.execute(_VERSIONS)
        }
        self._chains = ChainWalks(connection, seal, written, self._versions, self._findings)
        # Versions and chains that records name, but that are missing.
        self._unknown: dict[int, SealedVersion] = {}
        self._lost: dict[int, ChainWalk] = {}
        self._lost_records: Counter[int] = Counter()
        self._purged, self._before_ms = self._read_purges(connection, seal)
        self._oldest = uuid7.first_at(self._before_ms).bytes

    def _read_purges(self, connection: Connection, seal: Seal) -> tuple[int, int]:
        """Return how many decisions were purged by the purges' records, and up to which moment."""
        purged = before_ms = expected = 0
        for number, time_ms, before, decisions, who, mac in connection.execute(_PURGES):
            expected += 1
            if number != expected:
                gone = f"{expected}" if number == expected + 1 else f"{expected} to {number - 1}"
                self._find("removed purge", f"purge {gone}: the record of it is gone")
                expected = number
            if _purge_mac(seal, number, time_ms, before, decisions, who) == mac:
                purged += decisions
                before_ms = max(before_ms, before)
            else:
                self._find("edited purge", f"purge {number}: its MAC does not fit what it says")
        return purged, before_ms

    def records(self, rows: Iterable[Any]) -> Iterator[int]:
        """Check every record. Yields the number checked from time to time."""
        keyed, walks, versions = self._keyed, self._chains.walks, self._versions
        for row in rows:
            self._records += 1
            if self._records % _PROGRESS_RECORDS == 0:
                yield self._records
            record_id, time_ms, chain, seq, number, *_, digest, mac = row
            fault = self._fault(row)
            # Fast path: usually all is well, and there may be millions of records.
            try:
                walk, version = walks[chain], versions[number]
                if not fault and walk.calm and seq == walk.seq + 1 and seq not in walk.heads_at:
                    name = record_name(record_id, time_ms, chain, seq)
                    if record_mac(keyed, walk.mac, version.digest, name, digest) == mac:
                        walk.seq, walk.mac, walk.last_id = seq, mac, record_id
                        version.fits = True
                        continue
            except (AttributeError, KeyError, TypeError, struct.error):
                pass
            self._look_closely(record_id, time_ms, chain, seq, number, digest, mac, fault)

    def _fault(self, row: Any) -> str:
        """Return what is wrong with a record's values ("": nothing), whatever its place."""
        salt, digest = row[-3], row[-2]
        values = (*row[_FIRST:_LATE], _BOOLEANS.get(row[_LATE], row[_LATE]), *row[_LATE + 1 : -3])
        if salt is not None:
            try:
                return "" if values_digest(salt, values) == digest else _NOT_FITTING
            except (OverflowError, TypeError, UnicodeError):  # no writer can have written that
                return _NOT_FITTING
        if values != _ERASED:
            return "its salt was erased without its values"
        self._erased += 1
        record_id, chain = row[0], row[2]
        # Other ids and chains are reported as added records.
        if isinstance(record_id, bytes) and isinstance(chain, int) and record_id >= self._oldest:
            what = f"{uuid7.text(record_id)}: erased, but no purge covers its time"
            self._find("erased values", what, chain=chain, id=uuid7.text(record_id))
        return ""

    def _look_closely(
        self,
        record_id: Any,
        time_ms: Any,
        chain: Any,
        seq: Any,
        number: Any,
        digest: Any,
        mac: Any,
        fault: str,
    ) -> None:
        if not all(isinstance(each, int) for each in (time_ms, chain, seq, number)) or not all(
            isinstance(each, bytes) for each in (record_id, digest, mac)
        ):
            self._find("added record", f"{record_id!r}: holds values that no writer can write")
            return
        version = self._versions.get(number) or self._unknown.setdefault(
            number, SealedVersion(number)
        )
        step = ChainRecord(record_id, time_ms, seq, version, digest, mac, fault)
        walk = self._chains.walks.get(chain)
        if walk is not None and walk.try_continue(step):
            return
        # If so many don't fit, it was not their places that were edited.
        if version.misfits.totals.total() < SHOWN and any(
            other.try_misplaced(step) for other in self._chains.walks.values()
        ):
            return
        if walk is None:
            self._lost_records[chain] += 1
            walk = self._lost.get(chain)
            if walk is None:
                walk = self._lost[chain] = ChainWalk(
                    chain, self._keyed, self._versions, self._findings
                )
                walk.start_at(step)
                return
            if walk.try_continue(step):
                return
        walk.hold_in_doubt(step)

    def report(self) -> AuditReport:
        """Return the findings, after every record was checked."""
        chains = self._chains
        for walk in (*chains.walks.values(), *self._lost.values()):
            walk.finish()
        for version in (*self._versions.values(), *self._unknown.values()):
            if version.fits or not version.misfits.totals:
                self._findings.absorb(version.misfits)
            else:
                self._find("edited version", _version_sentence(version))
        chains.name_missing(self._lost_records)
        fits = chains.fits or self._purged > 0 or any(v.fits for v in self._versions.values())
        if chains.walks and not fits:
            self._findings = Findings()
            self._find("foreign seal", "nothing in the ledger was sealed with this key")
        elif not self._findings.totals and self._erased != self._purged:
            what = f"the purges' records count {self._purged:,}, but {self._erased:,} are erased"
            self._find("removed purge" if self._erased > self._purged else "erased values", what)
        return AuditReport(self._records, len(chains.walks), self._erased, self._findings)

    def _find(self, kind: str, what: str, **where: Any) -> None:
        self._findings.add(AuditFinding(kind, what, **where))


def _sealed(number: int, name: Any, digest: Any, threshold: Any) -> SealedVersion:
    """Return a version with its digest; an empty one if no writer can have written the row."""
    try:
        sealed_digest = version_digest(name, digest, threshold)
    except (OverflowError, TypeError, ValueError):
        sealed_digest = b""
    return SealedVersion(number, name if str(name).isprintable() else repr(name), sealed_digest)


def _purge_mac(seal: Seal, *values: Any) -> bytes | None:
    try:
        return seal.purge(*values)
    except (OverflowError, TypeError, ValueError):  # no purge can have written that
        return None


def _version_sentence(version: SealedVersion) -> str:
    count = plural(version.misfits.totals.total(), "record")
    if version.name is None:
        return f"version {version.number} is not in the table `versions`, but {count} names it"
    first = next(iter(version.misfits.shown())).id
    return (
        f"version {version.number} ({version.name}): its row fits none of the records that "
        f"name it: {count}, the first {first}"
    )
