"""Count the ledger's decisions, each once, in the order of their commits.

The records of a chain were committed in the order of their ids and numbers. So the last counted
record marks how far a chain was counted, and decisions that are committed late come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from sqlalchemy import Connection, insert, select, update

from peerloan import uuid7
from peerloan.clock import now_ms
from peerloan.database import Database
from peerloan.database.errors import LedgerError
from peerloan.database.snapshot import snapshot
from peerloan.database.tables import chains, counted, decisions, watchers
from peerloan.ledger.decision_stream import decision_batches
from peerloan.ledger.write.chain_opening import ABANDONED_MS, HEAD_INTERVAL_MS
from peerloan.monitoring.counting.counts import Counts
from peerloan.monitoring.counting.deduplication import CountedDecision, Decisions, Latest
from peerloan.monitoring.counting.storage import Hour, add_counts
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.registry import Store

# Batch sizes: decisions to count and store in one transaction, and inputs to decode at once.
BATCH_DECISIONS, _READ = 20_000, 5_000
# Longest normal delay between a decision's creation and its commit. A later commit is found once
# its writer has stored the next head of its chain, within a minute.
_LATE_MS = 600_000
_FIRST = bytes(16)


class CountedElsewhere(LedgerError):
    """Another process counted at the same time and committed first."""


@dataclass
class Progress:
    """The result of a counting run.

    `days` (since 1970) are those whose counts changed. `missing` maps each version that can't be
    loaded to the reason. `unreadable` counts decisions that can't be decoded and are left out.
    """

    decisions: int = 0
    outcomes: int = 0
    days: set[int] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)
    unreadable: int = 0


@dataclass
class _Chain:
    """The counting progress of a chain, and the id from which it is read."""

    seq: int
    id: bytes
    start: bytes
    # Whether all uncounted records follow `start`. If not, and numbers are missing, the chain is
    # read again from an earlier id.
    is_complete: bool
    ends: bool
    # The number of the last record, as its writer last stored it in the chain's head.
    head_seq: int
    blocked: bool = False
    changed: bool = False

    @property
    def missed(self) -> bool:
        """Whether the chain has uncounted records before `start`."""
        return self.blocked or (not self.is_complete and self.seq < self.head_seq)

    def restart(self) -> None:
        """Read the chain again from the last counted record, however old it is."""
        self.start, self.is_complete, self.blocked = self.id, True, False


def count_new(
    database: Database,
    store: Store,
    progress: Callable[[float], None] = lambda _done: None,
) -> Progress:
    """Count the decisions that were committed since the last run. Raises LedgerError.

    Processes may count at the same time; then all but one raise CountedElsewhere.
    """
    done = Progress()
    with snapshot(database) as connection:
        revision = connection.execute(select(watchers.c.revision)).scalar_one()
        versions = VersionCache(connection, store)
        every = _chains(connection)
        while every:
            rows = _stream(connection, min(each.start for each in every.values()), progress)
            revision = _pass(database, connection, versions, every, rows, revision, done)
            if not any(each.missed for each in every.values()):
                break
            for each in every.values():
                each.restart()
    done.missing = versions.missing
    return done


def _pass(
    database: Database,
    connection: Connection,
    versions: VersionCache,
    every: dict[int, _Chain],
    rows: Iterable[Decisions],
    revision: int,
    done: Progress,
) -> int:
    """Count a stream of decisions and store the counts. Returns the new revision."""
    # Includes chains that have ended, because they may contain a decision on the same loan.
    ended = select(counted.c.id).order_by(counted.c.id.desc()).limit(1)
    last = connection.execute(ended).scalar()
    newest = max([last.bytes if last else _FIRST, *(each.id for each in every.values())])

    def was_counted(chain: int, seq: int) -> bool:
        return chain not in every or seq <= every[chain].seq

    latest = Latest(connection, newest, was_counted)
    for some in rows:
        fresh = _fresh(every, some)
        counting, replaced = latest.choose(some, fresh)
        found: dict[Hour, Counts] = {}
        _count(versions, some, counting, 1, found, done)
        for others in latest.with_inputs(replaced):
            _count(versions, others, range(len(others.id)), -1, found, done)
        revision = _keep(database, revision, every, found)
        done.decisions += len(fresh)
    for number, chain in every.items():
        if chain.ends and not chain.missed:
            _finish(database, number, chain)
    return revision


def _chains(connection: Connection) -> dict[int, _Chain]:
    """Return the chains that may have uncounted records, by number."""
    before = {row.chain: row for row in connection.execute(select(counted))}
    found = {}
    now = now_ms()
    for row in connection.execute(select(chains)):
        seen = before.get(row.number)
        if seen is not None and seen.done and row.head_seq <= seen.seq:
            continue
        ends = row.closed or row.seen_ms < now - ABANDONED_MS
        if seen is None:
            # The first run reads everything.
            whole = not before
            start = _FIRST if whole else uuid7.first_at(row.opened_ms - HEAD_INTERVAL_MS).bytes
            found[row.number] = _Chain(0, _FIRST, start, whole, ends, row.head_seq)
            continue
        recent = uuid7.first_at(now - _LATE_MS).bytes
        # All records up to the stored head are counted, so only those of the last minute are left.
        whole = ends or row.head_seq > seen.seq or recent <= seen.id.bytes
        start = seen.id.bytes if whole else recent
        found[row.number] = _Chain(seen.seq, seen.id.bytes, start, whole, ends, row.head_seq)
    return found


def _stream(
    connection: Connection, start: bytes, progress: Callable[[float], None]
) -> Iterator[Decisions]:
    """Yield all decisions after an id, in the order of ids."""
    newest = select(decisions.c.id).order_by(decisions.c.id.desc()).limit(1)
    last = connection.execute(newest).scalar()
    end = uuid7.milliseconds(last.bytes) if last else 0
    begin = end
    columns = CountedDecision._fields[2:]
    with (
        decision_batches(connection, start, columns, BATCH_DECISIONS) as some,
        ThreadPoolExecutor(1) as ahead,
    ):
        # Read the next batch while this one is counted.
        coming = ahead.submit(next, some, None)
        while rows := coming.result():
            coming = ahead.submit(next, some, None)
            yield Decisions.of(rows)
            begin, now = min(begin, uuid7.milliseconds(rows[0][0])), uuid7.milliseconds(rows[-1][0])
            progress((now - begin) / (end - begin) if end > begin else 1.0)


def _fresh(every: dict[int, _Chain], some: Decisions) -> Sequence[int]:
    """Return the positions of decisions that continue their chains without a gap."""
    chains_of, seqs = np.array(some.chain), np.array(some.seq)
    taken = np.zeros(len(seqs), dtype=np.bool_)
    for number in np.unique(chains_of).tolist():
        chain = every.get(number)
        if chain is None or chain.blocked:
            continue
        own = np.flatnonzero(chains_of == number)
        own = own[seqs[own] > chain.seq]
        # A complete chain has gaps only if records were deleted: they never arrive.
        if not chain.is_complete:
            gaps = np.flatnonzero(np.diff(seqs[own], prepend=chain.seq) != 1)
            if len(gaps):
                chain.blocked = True
                own = own[: gaps[0]]
        if len(own):
            taken[own] = True
            chain.seq, chain.id, chain.changed = int(seqs[own[-1]]), some.id[own[-1]], True
    found: list[int] = np.flatnonzero(taken).tolist()
    return found


def _count(
    versions: VersionCache,
    some: Decisions,
    chosen: Iterable[int],
    sign: int,
    found: dict[Hour, Counts],
    done: Progress,
) -> None:
    """Add the counts of the chosen decisions; with `sign` −1 subtract them."""
    hours, margins = np.array(some.hour), np.array(some.margin, dtype=np.float64)
    # Chosen decisions always have inputs.
    inputs: Sequence[str] = some.inputs  # type: ignore[assignment]
    by_version: dict[tuple[int, str | None], list[int]] = {}
    for i in chosen:
        by_version.setdefault((some.version[i], some.source[i]), []).append(i)
    for (version, source), own in by_version.items():
        opened = versions.load(version)
        if opened is None:
            continue
        _, counting, reader = opened
        for first in range(0, len(own), _READ):
            part = own[first : first + _READ]
            loans, good = reader.read_many(list(map(inputs.__getitem__, part)))
            if not good.all():
                part = [i for i, fine in zip(part, good, strict=True) if fine]
                done.unreadable += len(good) - len(part)
            if not part:
                continue
            counted = counting.count(loans, margins[part], hours[part], sign)
            for number, counts in counted.items():
                hour = Hour(number, version, source or "")
                if hour in found:
                    found[hour].add(counts)
                else:
                    found[hour] = counts
                done.days.add(number // 24)


def _keep(
    database: Database, revision: int, every: dict[int, _Chain], found: dict[Hour, Counts]
) -> int:
    """Store counts and progress in one transaction."""
    with database.writing() as connection:
        advance(connection, revision)
        add_counts(connection, found)
        for number, chain in every.items():
            if chain.changed:
                _mark(connection, number, chain, done=False)
                chain.changed = False
    return revision + 1


def advance(connection: Connection, revision: int) -> None:
    """Advance the revision of the counts.

    Raises CountedElsewhere if another process did so first.
    """
    changed = connection.execute(
        update(watchers).where(watchers.c.revision == revision).values(revision=revision + 1)
    )
    if not changed.rowcount:
        raise CountedElsewhere(
            "another process has counted the ledger's decisions at the same time"
        )


def _finish(database: Database, number: int, chain: _Chain) -> None:
    """Mark a chain as completely counted."""
    with database.writing() as connection:
        _mark(connection, number, chain, done=True)


def _mark(connection: Connection, number: int, chain: _Chain, done: bool) -> None:
    values = {"seq": chain.seq, "id": UUID(bytes=chain.id), "done": done}
    changed = connection.execute(update(counted).where(counted.c.chain == number).values(**values))
    if not changed.rowcount:
        connection.execute(insert(counted).values(chain=number, **values))
