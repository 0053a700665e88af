"""Matured decisions: those of days of which most outcomes are known; what is learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import BigInteger, Connection, FromClause, Select, func, literal_column, or_, select

from peerloan.ledger.batches import MAX_ROWS, batches, measured
from peerloan.ledger.reading import parts
from peerloan.ledger.reports import DAY_MS
from peerloan.ledger.schema import decisions, outcomes

# A share times a count may be a little above the whole number that it is.
_ROUNDING = 1e-9
# Not a parameter: PostgreSQL would not see that it is the same wherever the day stands.
_A_DAY = literal_column(str(DAY_MS), BigInteger)
_day = decisions.c.time_ms // _A_DAY


class Matured(NamedTuple):
    """A decision and what became of its loan; `inputs` are JSON, as they were given."""

    id: bytes
    loan_id: str | None
    inputs: str
    late: bool


def matured(connection: Connection, share: float, now_ms: int) -> Iterator[list[Matured]]:
    """Each loan's latest decision that has matured, the oldest first, in lists of thousands; of
    fewer where the loans are large.

    It has if an outcome of it is known, and one of at least this share of its day's decisions:
    late loans may be told before the others, and of a young day too many are late. The outcome is
    that which holds `now_ms` (milliseconds since 1970); decisions that name no loan are loans of
    their own.
    """
    rows = _each(connection, share, now_ms)
    yield from measured(rows, Matured._fields.index("inputs"))


def _each(connection: Connection, share: float, now_ms: int) -> Iterator[Matured]:
    told = _told(now_ms)
    place = func.row_number().over(partition_by=decisions.c.loan_id, order_by=decisions.c.id.desc())
    chosen = (
        select(decisions.c.id, told.c.late, decisions.c.loan_id, place.label("place"))
        .join(told, told.c.decision_id == decisions.c.id)
        .where(decisions.c.inputs.is_not(None), _day.in_(_mature_days(told, share)))
        .subquery()
    )
    rows = (
        select(chosen.c.id, chosen.c.late)
        .where(or_(chosen.c.loan_id.is_(None), chosen.c.place == 1))
        .order_by(chosen.c.id)
    )
    # To sort them with their loans would write all of these once more.
    chosen_rows = connection.execute(rows, execution_options={"yield_per": MAX_ROWS})
    for late in (dict(map(tuple, some)) for some in chosen_rows.partitions()):
        for named in parts(list(late)):
            columns = decisions.c.id, decisions.c.loan_id, decisions.c.inputs
            full = select(*columns).where(decisions.c.id.in_(named)).order_by(decisions.c.id)
            for some in batches(connection, full):
                for made, loan_id, inputs in some:
                    yield Matured(made.bytes, loan_id, inputs, late[made])


def count_young(connection: Connection, share: float, now_ms: int) -> int:
    """How many decisions have an outcome, but were made on a day of which too few are known."""
    told = _told(now_ms)
    rows = (
        select(func.count())
        .select_from(decisions)
        .join(told, told.c.decision_id == decisions.c.id)
        .where(decisions.c.inputs.is_not(None), _day.not_in(_mature_days(told, share)))
    )
    return int(connection.execute(rows).scalar_one())


def _told(now_ms: int) -> FromClause:
    """The outcome of each decision that holds: the last that was told."""
    last = (
        select(func.max(outcomes.c.number).label("number"))
        .where(outcomes.c.recorded_ms <= now_ms)
        .group_by(outcomes.c.decision_id)
        .subquery()
    )
    return (
        select(outcomes.c.decision_id, outcomes.c.late)
        .join(last, last.c.number == outcomes.c.number)
        .subquery()
    )


def _mature_days(told: FromClause, share: float) -> Select[tuple[int]]:
    every = decisions.alias()
    day = every.c.time_ms // _A_DAY
    known = func.count(told.c.decision_id)
    return (
        select(day)
        .select_from(every)
        .outerjoin(told, told.c.decision_id == every.c.id)
        .where(every.c.inputs.is_not(None))
        .group_by(day)
        .having(known >= share * func.count() - _ROUNDING)
    )
