"""Which decisions count: of those on a loan by a version and source on a day, the latest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from peerloan import uuid7
from peerloan.clock import DAY_MS, HOUR_MS
from peerloan.database.tables import decisions
from peerloan.ledger.queries import chunked
from peerloan.ledger.row_batches import batches

# Loans of one day that are kept in mind; of the others the ledger is asked.
_MOST = 1_000_000


class CountedDecision(NamedTuple):
    """What is counted of a decision, and the hour in which it was made, since 1970. Its inputs may
    have to be read yet: `Latest.with_inputs`.
    """

    id: bytes
    hour: int
    chain: int
    seq: int
    version: int
    source: str | None
    loan_id: str | None
    inputs: str | None
    margin: float | None


class Decisions(NamedTuple):
    """Decisions by rising id, in columns (n,)."""

    id: Sequence[bytes]
    hour: Sequence[int]
    chain: Sequence[int]
    seq: Sequence[int]
    version: Sequence[int]
    source: Sequence[str | None]
    loan_id: Sequence[str | None]
    inputs: Sequence[str | None]
    margin: Sequence[float | None]

    @classmethod
    def of(cls, rows: Iterable[Sequence[Any]]) -> Decisions:
        """At least one decision, given as rows."""
        return cls(*zip(*rows, strict=True))


# As they are selected.
COLUMNS = ("id", "time_ms", *CountedDecision._fields[2:])
# Version, source, loan (or the decision's own id), day.
_Key = tuple[int, str | None, str | bytes, int]


class Latest:
    """Chooses among decisions that come by rising id, from the state of the ledger."""

    def __init__(
        self, connection: Connection, newest: bytes, was_counted: Callable[[int, int], bool]
    ) -> None:
        """`newest` is the highest id that was counted before; `was_counted` tells of a chain's
        record whether it was.
        """
        self._connection, self._was_counted = connection, was_counted
        # Of days up to this one, some decisions may have been counted before.
        self._known_day = uuid7.milliseconds(newest) // DAY_MS
        self._day = 0
        self._today: dict[_Key, bytes] = {}

    def choose(
        self, some: Decisions, fresh: Sequence[int]
    ) -> tuple[Iterable[int], list[CountedDecision]]:
        """The positions of those that count, of the fresh ones; and those that were counted and no
        longer do, without their inputs.
        """
        own_id, _, _, _, version, source, loan_id, _, margin = some
        day = [hour // 24 for hour in some.hour]
        latest: dict[_Key, int] = {
            (version[i], source[i], loan_id[i] or own_id[i], day[i]): i
            for i in fresh
            if margin[i] is not None  # its values were not erased
        }
        gone = [self._today[key] for key in self._today.keys() & latest.keys()]
        if day[-1] > self._day:
            self._day = day[-1]
            self._today = {}
        self._today.update((key, own_id[i]) for key, i in latest.items() if key[3] == self._day)
        replaced = list(self._named(gone))
        if day[0] <= self._known_day:
            own = {own_id[i] for i in fresh}
            asked = {key: i for key, i in latest.items() if key[3] <= self._known_day}
            for key, before in self._before(asked, own).items():
                if before.id > own_id[latest[key]]:
                    del latest[key]
                else:
                    replaced.append(before)
        if len(self._today) > _MOST:
            self._known_day = self._day
            self._today = {}
        return latest.values(), replaced

    def _named(self, gone: Sequence[bytes]) -> Iterator[CountedDecision]:
        for some in chunked(gone):
            named = decisions.c.id.in_([UUID(bytes=each) for each in some])
            yield from self._found(named)

    def _before(self, asked: dict[_Key, int], own: set[bytes]) -> dict[_Key, CountedDecision]:
        """The decisions that were counted of these loans and days."""
        found: dict[_Key, CountedDecision] = {}
        days = {key[3] for key in asked}
        loans = sorted({key[2] for key in asked if isinstance(key[2], str)})
        for some in chunked(loans):
            of_loans = decisions.c.loan_id.in_(some)
            low = uuid7.first_at(min(days) * DAY_MS)
            high = uuid7.first_at((max(days) + 1) * DAY_MS)
            of_days = (decisions.c.id >= low) & (decisions.c.id < high)
            for each in self._found(of_loans & of_days):
                key = each.version, each.source, each.loan_id or "", each.hour // 24
                was = each.id not in own and self._was_counted(each.chain, each.seq)
                if was and key in asked:
                    found[key] = each
        return found

    def _found(self, where: Any) -> Iterator[CountedDecision]:
        """Decisions whose values were not erased, by rising id, without their inputs."""
        columns = [decisions.c[name] for name in COLUMNS if name != "inputs"]
        rows = select(*columns).where(where, decisions.c.margin.is_not(None))
        for row in self._connection.execute(rows.order_by(decisions.c.id)):
            made, time_ms, chain, seq, version, source, loan_id, margin = tuple(row)
            place = chain, seq, version, source, loan_id
            yield CountedDecision(made.bytes, time_ms // HOUR_MS, *place, None, margin)

    def with_inputs(self, some: Sequence[CountedDecision]) -> Iterator[Decisions]:
        """Decisions with their inputs, of which there may be much: batch by batch."""
        known = {each.id: each for each in some}
        for named in chunked(list(known)):
            rows = select(decisions.c.id, decisions.c.inputs)
            rows = rows.where(decisions.c.id.in_([UUID(bytes=each) for each in named]))
            for batch in batches(self._connection, rows.order_by(decisions.c.id)):
                yield Decisions.of(
                    known[made.bytes]._replace(inputs=inputs) for made, inputs in batch
                )
