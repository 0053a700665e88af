"""Matured decisions, for training: decisions of days for which most outcomes were reported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, FromClause, Select, func, or_, select, true

from peerloan.database.tables import decisions, outcomes
from peerloan.ledger.early_outcomes import A_DAY, is_timely
from peerloan.ledger.outcomes import COMMAND_LINE
from peerloan.ledger.queries import chunked
from peerloan.ledger.row_batches import MAX_ROWS, rows_in_batches, split_measured_rows

# Tolerance: by rounding, a share times a count may be slightly above a whole number.
_ROUNDING = 1e-9
_day = decisions.c.time_ms // A_DAY
_COLUMNS = [decisions.c[name] for name in ("id", "loan_id", "inputs", "caller", "source")]
# Decisions of `peerloan score --record`. Their caller is the user who ran the command.
_of_book = decisions.c.source == "book"


class MaturedDecision(NamedTuple):
    """A decision and its outcome.

    `inputs` is the loan's JSON as it was received. `caller` reported the outcome; `decided_for` is
    the caller that the decision was made for. Both may be a user of the command line.
    """

    id: bytes
    loan_id: str | None
    inputs: str
    late: bool
    caller: str
    decided_for: str


class MaturityFilter(NamedTuple):
    """Which outcomes and decisions may be used for training.

    An outcome is eligible if it was reported up to `now_ms` (milliseconds since 1970), at least
    `first_day` days after the decision, and by one of `callers` or on the command line. A decision
    is eligible if it was made for one of `decided_for` or on the command line. None: all callers.
    """

    now_ms: int
    first_day: int = 0
    callers: tuple[str, ...] | None = None
    decided_for: tuple[str, ...] | None = None


class SkippedCounts(NamedTuple):
    """Numbers of decisions whose outcome is not used for training, by reason.

    `early`: the outcome was reported before it could be known. `others`: it was reported by a
    caller that is not listed. `decisions`: the decision was made for a caller that is not listed.
    """

    early: int
    others: int
    decisions: int


def matured_decisions(
    connection: Connection, share: float, eligible: MaturityFilter
) -> Iterator[list[MaturedDecision]]:
    """Yield each loan's latest matured decision, the oldest first, in lists of some thousands.

    A decision has matured if it has an eligible outcome, and at least `share` of the eligible
    decisions of its day have one too. Late loans may be reported before the others, so outcomes of
    a recent day would have too many late loans. The last eligible outcome of a decision counts.
    A decision without a loan's id counts as a separate loan.
    """
    rows = _matured_rows(connection, share, eligible)
    yield from split_measured_rows(rows, MaturedDecision._fields.index("inputs"))


def _matured_rows(
    connection: Connection, share: float, eligible: MaturityFilter
) -> Iterator[MaturedDecision]:
    reported = _reported(eligible)
    place = func.row_number().over(partition_by=decisions.c.loan_id, order_by=decisions.c.id.desc())
    chosen = (
        select(
            *(decisions.c.id, reported.c.late, reported.c.caller),
            *(decisions.c.loan_id, place.label("place")),
        )
        .join(reported, reported.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible), _day.in_(_mature_days(reported, share, eligible)))
        .subquery()
    )
    rows = (
        select(chosen.c.id, chosen.c.late, chosen.c.caller)
        .where(or_(chosen.c.loan_id.is_(None), chosen.c.place == 1))
        .order_by(chosen.c.id)
    )
    # Sort the ids only: to sort rows with their loans, the database would write all loans to disk.
    chosen_rows = connection.execute(rows, execution_options={"yield_per": MAX_ROWS})
    for partition in chosen_rows.partitions():
        outcome_of = {row.id: (row.late, row.caller) for row in partition}
        for ids in chunked(list(outcome_of)):
            full = select(*_COLUMNS).where(decisions.c.id.in_(ids)).order_by(decisions.c.id)
            for batch in rows_in_batches(connection, full):
                for made, loan_id, inputs, caller, source in batch:
                    decided_for = (caller or "") + (COMMAND_LINE if source == "book" else "")
                    yield MaturedDecision(
                        made.bytes, loan_id, inputs, *outcome_of[made], decided_for
                    )


def count_young(connection: Connection, share: float, eligible: MaturityFilter) -> int:
    """Count the decisions with an eligible outcome on days with too few outcomes.

    Too few: less than `share` of the day's eligible decisions have an outcome.
    """
    reported = _reported(eligible)
    rows = (
        select(func.count())
        .select_from(decisions)
        .join(reported, reported.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible), _day.not_in(_mature_days(reported, share, eligible)))
    )
    return int(connection.execute(rows).scalar_one())


def count_skipped(connection: Connection, eligible: MaturityFilter) -> SkippedCounts:
    """Count the decisions that have outcomes, none of which is eligible, by reason."""
    for_anybody = eligible._replace(decided_for=None)
    timely = for_anybody._replace(callers=None)
    with_any, with_timely, with_listed, with_eligible = (
        _count(connection, selection)
        for selection in (timely._replace(first_day=0), timely, for_anybody, eligible)
    )
    return SkippedCounts(
        with_any - with_timely, with_timely - with_listed, with_listed - with_eligible
    )


def _count(connection: Connection, eligible: MaturityFilter) -> int:
    """Count the eligible decisions with an eligible outcome."""
    reported = _reported(eligible)
    rows = (
        select(func.count())
        .select_from(decisions)
        .join(reported, reported.c.decision_id == decisions.c.id)
        .where(_is_eligible(eligible))
    )
    return int(connection.execute(rows).scalar_one())


def _is_eligible(eligible: MaturityFilter) -> ColumnElement[bool]:
    """Select eligible decisions: not purged, and made for a listed caller or on a book."""
    callers = eligible.decided_for
    is_listed = true() if callers is None else or_(decisions.c.caller.in_(callers), _of_book)
    return decisions.c.inputs.is_not(None) & is_listed


def _reported(eligible: MaturityFilter) -> FromClause:
    """Select the outcome of each decision that counts: the last eligible one."""
    chosen = select(func.max(outcomes.c.number).label("number")).where(
        outcomes.c.recorded_ms <= eligible.now_ms
    )
    if eligible.first_day:
        chosen = chosen.join(decisions, decisions.c.id == outcomes.c.decision_id)
        chosen = chosen.where(is_timely(eligible.first_day))
    if eligible.callers is not None:
        is_listed = outcomes.c.caller.in_(eligible.callers)
        chosen = chosen.where(or_(is_listed, outcomes.c.caller.endswith(COMMAND_LINE)))
    last = chosen.group_by(outcomes.c.decision_id).subquery()
    return (
        select(outcomes.c.decision_id, outcomes.c.late, outcomes.c.caller)
        .join(last, last.c.number == outcomes.c.number)
        .subquery()
    )


def _mature_days(
    reported: FromClause, share: float, eligible: MaturityFilter
) -> Select[tuple[int]]:
    """Select the days on which at least `share` of the eligible decisions have an outcome."""
    made = select(decisions.c.id, _day.label("day")).where(_is_eligible(eligible)).subquery()
    with_outcome = func.count(reported.c.decision_id)
    return (
        select(made.c.day)
        .select_from(made)
        .outerjoin(reported, reported.c.decision_id == made.c.id)
        .group_by(made.c.day)
        .having(with_outcome >= share * func.count() - _ROUNDING)
    )
