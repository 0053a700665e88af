"""Verifies the ledger: every record must exist, and be as its writer stored it."""

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
from peerloan.ledger.seal import Seal, pack_place, record_mac, values_digest, version_digest

_FIRST = COLUMNS.index(VALUES[0])
_LATE = COLUMNS.index("late")
_ERASED = (None,) * len(VALUES)
# SQLite has no booleans. A writer writes no other values.
_BOOLEANS = {0: False, 1: True}
_NO_MATCH = "its values do not match their digest"
_VERSIONS = text("SELECT number, version, digest, threshold FROM versions")
_PURGES = text("SELECT number, time_ms, before_ms, decisions, who, mac FROM purges ORDER BY number")
# Records between two calls of `progress`.
_PROGRESS_RECORDS = 10_000


class AuditReport(NamedTuple):
    """The result of a verification; `erased` counts the records without values."""

    records: int
    chains: int
    erased: int
    findings: Findings


def verify(
    database: Database, seal: Seal, progress: Callable[[float], None] = lambda _: None
) -> AuditReport:
    """Verify the whole ledger in one snapshot, while writers may go on.

    `progress` is called with the share that is done. Raises LedgerError if the database or the seal
    can't be read.
    """
    # Read the files before the snapshot: a head is written after its record, so no head names a
    # record that the snapshot lacks.
    seal_files = SealFiles.read(seal)
    with snapshot(database) as connection:
        take_any_text(connection)
        total = connection.execute(select(func.count()).select_from(tables.decisions)).scalar_one()
        verification = _Verification(connection, seal, seal_files)
        for count in verification.check_records(raw_records(connection)):
            progress(count / total)
        return verification.report()


class _Verification:
    """A verification in progress: all chains are walked at once, in the order of ids."""

    def __init__(self, connection: Connection, seal: Seal, seal_files: SealFiles) -> None:
        self._mac_template = seal.mac_template
        self._findings = Findings()
        self._records = self._erased = 0
        self._versions: dict[int, SealedVersion] = {
            row.number: _sealed_version(*row) for row in connection.execute(_VERSIONS)
        }
        self._chains = ChainWalks(connection, seal, seal_files, self._versions, self._findings)
        # Versions and chains that records name, but that have no row.
        self._missing_versions: dict[int, SealedVersion] = {}
        self._missing_chains: dict[int, ChainWalk] = {}
        self._missing_chain_records: Counter[int] = Counter()
        self._purged, self._before_ms = self._read_purges(connection, seal)
        self._oldest = uuid7.first_at(self._before_ms).bytes

    def _read_purges(self, connection: Connection, seal: Seal) -> tuple[int, int]:
        """Check the rows of `purges`.

        Returns how many decisions they count as purged, and the latest moment before which a purge
        erased values.
        """
        purged = before_ms = expected = 0
        for number, time_ms, before, decisions, who, mac in connection.execute(_PURGES):
            expected += 1
            if number != expected:
                gap = f"{expected}" if number == expected + 1 else f"{expected} to {number - 1}"
                self._report("removed purge", f"purge {gap}: its row in `purges` is missing")
                expected = number
            if _purge_mac(seal, number, time_ms, before, decisions, who) == mac:
                purged += decisions
                before_ms = max(before_ms, before)
            else:
                self._report("edited purge", f"purge {number}: its MAC does not match its row")
        return purged, before_ms

    def check_records(self, rows: Iterable[Any]) -> Iterator[int]:
        """Check every record. Yields the number of checked records from time to time."""
        template, walks, versions = self._mac_template, self._chains.walks, self._versions
        for row in rows:
            self._records += 1
            if self._records % _PROGRESS_RECORDS == 0:
                yield self._records
            record_id, time_ms, chain, seq, number, *_, digest, mac = row
            fault = self._value_fault(row)
            # Fast path: there may be millions of records, and nearly all of them are unchanged.
            try:
                walk, version = walks[chain], versions[number]
                if (
                    not fault
                    and walk.is_certain
                    and seq == walk.seq + 1
                    and seq not in walk.head_seqs
                ):
                    place = pack_place(record_id, time_ms, chain, seq)
                    if record_mac(template, walk.mac, version.digest, place, digest) == mac:
                        walk.seq, walk.mac, walk.last_id = seq, mac, record_id
                        version.has_match = True
                        continue
            except (AttributeError, KeyError, TypeError, struct.error):
                pass
            self._check_closely(row, fault)

    def _value_fault(self, row: Any) -> str:
        """Return what is wrong with a record's values ("": nothing); count erased ones."""
        salt, digest = row[-3], row[-2]
        values = (*row[_FIRST:_LATE], _BOOLEANS.get(row[_LATE], row[_LATE]), *row[_LATE + 1 : -3])
        if salt is not None:
            try:
                return "" if values_digest(salt, values) == digest else _NO_MATCH
            except (OverflowError, TypeError, UnicodeError):  # no writer can write that
                return _NO_MATCH
        if values != _ERASED:
            return "its salt was erased without its values"
        self._erased += 1
        record_id, chain = row[0], row[2]
        # Other ids and chains are reported as added records.
        if isinstance(record_id, bytes) and isinstance(chain, int) and record_id >= self._oldest:
            what = f"{uuid7.text(record_id)}: its values are erased, but no purge covers its time"
            self._report("erased values", what, chain=chain, id=uuid7.text(record_id))
        return ""

    def _check_closely(self, row: Any, fault: str) -> None:
        """Check a record that does not simply continue its chain; `fault`: of its values."""
        record_id, time_ms, chain, seq, number, *_, digest, mac = row
        if not all(isinstance(value, int) for value in (time_ms, chain, seq, number)) or not all(
            isinstance(value, bytes) for value in (record_id, digest, mac)
        ):
            self._report("added record", f"{record_id!r}: contains values that no writer can write")
            return
        version = self._versions.get(number) or self._missing_versions.setdefault(
            number, SealedVersion(number)
        )
        record = ChainRecord(record_id, time_ms, seq, version, digest, mac, fault)
        walk = self._chains.walks.get(chain)
        if walk is not None and walk.try_continue(record):
            return
        # If many of a version's records don't match, their places are not what was edited.
        if version.mismatches.totals.total() < SHOWN and any(
            other.try_edited_place(record) for other in self._chains.walks.values()
        ):
            return
        if walk is None:
            self._missing_chain_records[chain] += 1
            walk = self._missing_chains.get(chain)
            if walk is None:
                walk = self._missing_chains[chain] = ChainWalk(
                    chain, self._mac_template, self._versions, self._findings
                )
                walk.start_at(record)
                return
            if walk.try_continue(record):
                return
        walk.hold_as_suspect(record)

    def report(self) -> AuditReport:
        """Finish the walks and return the report, after every record was checked."""
        chains = self._chains
        for walk in (*chains.walks.values(), *self._missing_chains.values()):
            walk.finish()
        for version in (*self._versions.values(), *self._missing_versions.values()):
            if version.has_match or not version.mismatches.totals:
                self._findings.absorb(version.mismatches)
            else:
                self._report("edited version", _version_sentence(version))
        chains.report_missing(self._missing_chain_records)
        has_match = (
            chains.has_match
            or self._purged > 0
            or any(version.has_match for version in self._versions.values())
        )
        if chains.walks and not has_match:
            self._findings = Findings()
            self._report("foreign seal", "nothing in the ledger was sealed with this key")
        elif not self._findings.totals and self._erased != self._purged:
            what = (
                f"the table `purges` counts {plural(self._purged, 'purged decision')}, but "
                f"{self._erased:,} are erased"
            )
            self._report("removed purge" if self._erased > self._purged else "erased values", what)
        return AuditReport(self._records, len(chains.walks), self._erased, self._findings)

    def _report(self, kind: str, what: str, **place: Any) -> None:
        self._findings.add(AuditFinding(kind, what, **place))


def _sealed_version(number: int, name: Any, digest: Any, threshold: Any) -> SealedVersion:
    """Return a version with its digest; an empty one if no writer can have written the row."""
    try:
        sealed_digest = version_digest(name, digest, threshold)
    except (OverflowError, TypeError, ValueError):
        sealed_digest = b""
    return SealedVersion(number, name if str(name).isprintable() else repr(name), sealed_digest)


def _purge_mac(seal: Seal, *values: Any) -> bytes | None:
    try:
        return seal.purge_mac(*values)
    except (OverflowError, TypeError, ValueError):  # no purge can write that
        return None


def _version_sentence(version: SealedVersion) -> str:
    total = version.mismatches.totals.total()
    count = plural(total, "record")
    if version.name is None:
        verb = "names" if total == 1 else "name"
        return f"version {version.number} is not in the table `versions`, but {count} {verb} it"
    first = next(iter(version.mismatches.shown())).id
    return (
        f"version {version.number} ({version.name}): its row matches no record of it: {count}, "
        f"the first {first}"
    )
