"""Matured decisions: those of days of which most outcomes are known; what is learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, or_, select, true

from peerloan.database.tables import decisions, outcomes
from peerloan.ledger.early_outcomes import A_DAY, in_time
from peerloan.ledger.outcomes import COMMAND_LINE
from peerloan.ledger.queries import parts
from peerloan.ledger.row_batches import MAX_ROWS, batches, measured

# A share times a count may be a little above the whole number that it is.
_ROUNDING = 1e-9
_day = decisions.c.time_ms // A_DAY
_COLUMNS = [decisions.c[name] for name in ("id", "loan_id", "inputs", "caller", "source")]
# What `peerloan score --record` decided on; its caller is the user of a machine.
_of_book = decisions.c.source == "book"


class Matured(NamedTuple):
    """A decision and what became of its loan; `inputs` are JSON, as they were given. `caller` told
    the outcome, and the service decided for `decided_for`; either may be the command line.
    """

    id: bytes
    loan_id: str | None
    inputs: str
    late: bool
    caller: str
    decided_for: str


class Eligible(NamedTuple):
    """Which outcomes are learnt from: those told up to `now_ms` (milliseconds since 1970), not
    before the first day after the decision on which one counts, and by these callers or on the
    command line; by any caller if there is no list of them. And of which decisions: those made for
    the callers in `decided_for` or on the command line, if there is such a list.
    """

    now_ms: int
    first_day: int = 0
    callers: tuple[str, ...] | None = None
    decided_for: tuple[str, ...] | None = None


class PassedOver(NamedTuple):
    """Decisions with an outcome of which none is learnt from: `early`, it was told before it could
    be known; `others`, by a caller that is not among those listed; `decisions`, the decision was
    made for such a one.
    """

    early: int
    others: int
    decisions: int


def matured(connection: Connection, share: float, eligible: Eligible) -> Iterator[list[Matured]]:
    """Each loan's latest eligible decision that has matured, the oldest first, in lists of
    thousands; of fewer where the loans are large.

    It has if an eligible outcome of it is known, and one of at least this share of its day's
    eligible decisions: late loans may be told before the others, and of a young day too many are
    late. The last eligible outcome holds; decisions that name no loan are loans of their own.
    """
    rows = _each(connection, share, eligible)
    yield from measured(rows, Matured._fields.index("inputs"))


def _each(connection: Connection, share: float, eligible: Eligible) -> Iterator[Matured]:
    told = _told(eligible)
    place = func.row_number().over(partition_by=decisions.c.loan_id, order_by=decisions.c.id.desc())
    chosen = (
        select(
            *(decisions.c.id, told.c.late, told.c.caller),
            *(decisions.c.loan_id, place.label("place")),
        )
        .join(told, told.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible), _day.in_(_mature_days(told, share, eligible)))
        .subquery()
    )
    rows = (
        select(chosen.c.id, chosen.c.late, chosen.c.caller)
        .where(or_(chosen.c.loan_id.is_(None), chosen.c.place == 1))
        .order_by(chosen.c.id)
    )
    # To sort them with their loans would write all of these once more.
    chosen_rows = connection.execute(rows, execution_options={"yield_per": MAX_ROWS})
    for some in chosen_rows.partitions():
        outcome_of = {row.id: (row.late, row.caller) for row in some}
        for named in parts(list(outcome_of)):
            full = select(*_COLUMNS).where(decisions.c.id.in_(named)).order_by(decisions.c.id)
            for batch in batches(connection, full):
                for made, loan_id, inputs, caller, source in batch:
                    decided_for = (caller or "") + (COMMAND_LINE if source == "book" else "")
                    yield Matured(made.bytes, loan_id, inputs, *outcome_of[made], decided_for)


def count_young(connection: Connection, share: float, eligible: Eligible) -> int:
    """How many decisions have an eligible outcome, but were made on a day of which too few are
    known.
    """
    told = _told(eligible)
    rows = (
        select(func.count())
        .select_from(decisions)
        .join(told, told.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible), _day.not_in(_mature_days(told, share, eligible)))
    )
    return int(connection.execute(rows).scalar_one())


def count_passed_over(connection: Connection, eligible: Eligible) -> PassedOver:
    """How many decisions have outcomes, but none that is eligible, and why."""
    of_all = eligible._replace(decided_for=None)
    of_any = of_all._replace(callers=None)
    every, timely, chosen, left = (
        _count(connection, each)
        for each in (of_any._replace(first_day=0), of_any, of_all, eligible)
    )
    return PassedOver(every - timely, timely - chosen, chosen - left)


def _count(connection: Connection, eligible: Eligible) -> int:
    told = _told(eligible)
    rows = (
        select(func.count())
        .select_from(decisions)
        .join(told, told.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible))
    )
    return int(connection.execute(rows).scalar_one())


def _is_eligible(eligible: Eligible) -> ColumnElement[bool]:
    """Whether a decision may be learnt from: it was not purged, and was made for one of those."""
    named = eligible.decided_for
    of_them = true() if named is None else or_(decisions.c.caller.in_(named), _of_book)
    return decisions.c.inputs.is_not(None) & of_them


def _told(eligible: Eligible) -> FromClause:
    """The outcome of each decision that holds: the last eligible one that was told."""
    chosen = select(func.max(outcomes.c.number).label("number")).where(
        outcomes.c.recorded_ms <= eligible.now_ms
    )
    if eligible.first_day:
        chosen = chosen.join(decisions, decisions.c.id == outcomes.c.decision_id)
        chosen = chosen.where(in_time(eligible.first_day))
    if eligible.callers is not None:
        named = outcomes.c.caller.in_(eligible.callers)
        chosen = chosen.where(or_(named, outcomes.c.caller.endswith(COMMAND_LINE)))
    last = chosen.group_by(outcomes.c.decision_id).subquery()
    return (
        select(outcomes.c.decision_id, outcomes.c.late, outcomes.c.caller)
        .join(last, last.c.number == outcomes.c.number)
        .subquery()
    )


def _mature_days(told: FromClause, share: float, eligible: Eligible) -> Select[tuple[int]]:
    every = select(decisions.c.id, _day.label("day")).where(_is_eligible(eligible)).subquery()
    known = func.count(told.c.decision_id)
    return (
        select(every.c.day)
        .select_from(every)
        .outerjoin(told, told.c.decision_id == every.c.id)
        .group_by(every.c.day)
        .having(known >= share * func.count() - _ROUNDING)
    )
