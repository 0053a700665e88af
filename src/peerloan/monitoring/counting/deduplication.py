"""Select the decisions to count: the latest one of each loan, version, source and day."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from peerloan import uuid7
from peerloan.clock import DAY_MS, HOUR_MS
from peerloan.database.tables import decisions
from peerloan.ledger.queries import chunked
from peerloan.ledger.row_batches import rows_in_batches

# Most loans of one day to hold in memory; beyond that the ledger is queried.
MAX_LOANS_IN_MEMORY = 1_000_000


class CountedDecision(NamedTuple):
    """The parts of a decision that are counted; `hour` is in hours since 1970.

    `inputs` may still be None: `Latest.with_inputs` reads them.
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
    """Decisions in the order of their ids, in columns (n,)."""

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
        """Make columns from rows; there must be at least one."""
        return cls(*zip(*rows, strict=True))


# The selected columns.
COLUMNS = ("id", "time_ms", *CountedDecision._fields[2:])
# Version, source, loan (or else the id of the decision), day.
_Key = tuple[int, str | None, str | bytes, int]


class Latest:
    """Selects the latest decisions from a stream that is in the order of ids."""

    def __init__(
        self, connection: Connection, newest: bytes, was_counted: Callable[[int, int], bool]
    ) -> None:
        """`newest` is the highest id that was counted before this run.

        `was_counted` returns whether the record of a chain was counted before.
        """
        self._connection, self._was_counted = connection, was_counted
        # On days up to this one, some decisions may have been counted before.
        self._known_day = uuid7.milliseconds(newest) // DAY_MS
        self._day = 0
        self._today: dict[_Key, bytes] = {}

    def choose(
        self, some: Decisions, fresh: Sequence[int]
    ) -> tuple[Iterable[int], list[CountedDecision]]:
        """Select the decisions to count among those at the positions `fresh`.

        Returns their positions, and the counted decisions that they replace (without inputs).
        """
        own_id, _, _, _, version, source, loan_id, _, margin = some
        day = [hour // 24 for hour in some.hour]
        latest: dict[_Key, int] = {
            (version[i], source[i], loan_id[i] or own_id[i], day[i]): i
            for i in fresh
            if margin[i] is not None  # None if its values are erased
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
        if len(self._today) > MAX_LOANS_IN_MEMORY:
            self._known_day = self._day
            self._today = {}
        return latest.values(), replaced

    def _named(self, gone: Sequence[bytes]) -> Iterator[CountedDecision]:
        for some in chunked(gone):
            named = decisions.c.id.in_([UUID(bytes=each) for each in some])
            yield from self._found(named)

    def _before(self, asked: dict[_Key, int], own: set[bytes]) -> dict[_Key, CountedDecision]:
        """Find the counted decisions on these loans and days."""
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
        """Yield decisions whose values are not erased, in the order of ids, without inputs."""
        columns = [decisions.c[name] for name in COLUMNS if name != "inputs"]
        rows = select(*columns).where(where, decisions.c.margin.is_not(None))
        for row in self._connection.execute(rows.order_by(decisions.c.id)):
            made, time_ms, chain, seq, version, source, loan_id, margin = tuple(row)
            place = chain, seq, version, source, loan_id
            yield CountedDecision(made.bytes, time_ms // HOUR_MS, *place, None, margin)

    def with_inputs(self, some: Sequence[CountedDecision]) -> Iterator[Decisions]:
        """Yield decisions with their inputs, in batches to limit memory."""
        known = {each.id: each for each in some}
        for named in chunked(list(known)):
            rows = select(decisions.c.id, decisions.c.inputs)
            rows = rows.where(decisions.c.id.in_([UUID(bytes=each) for each in named]))
            for batch in rows_in_batches(self._connection, rows.order_by(decisions.c.id)):
                yield Decisions.of(
                    known[made.bytes]._replace(inputs=inputs) for made, inputs in batch
                )
