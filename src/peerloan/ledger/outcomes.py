"""Outcomes: what became of loans that were decided on, with all corrections."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    String,
    column,
    insert,
    select,
    text,
    true,
    values,
)

from peerloan import uuid7
from peerloan.clock import DAY_MS, date_of, now_ms
from peerloan.database.engine import Database
from peerloan.database.tables import Id, decisions, outcomes
from peerloan.formatting import show_value
from peerloan.ledger.early_outcomes import first_counting_day, is_early
from peerloan.ledger.outcome_parsing import OutcomeParser, ReportedOutcome
from peerloan.ledger.queries import chunked, made_for
from peerloan.loan import Definition, Problem
from peerloan.loan.spelling import id_spellings, plain

# Rows named by one statement, and rows fetched at once by a stream.
_NAMED = 1_000
_AT_ONCE = 5_000
_COLUMNS = [each for each in outcomes.c if each is not outcomes.c.number]
# Serializes outcome reports: two at once could both insert a first outcome.
_ALONE = text("SELECT pg_advisory_xact_lock(7382650322)")

# Follows the user's name if the command reported an outcome. No token's name can end with it.
COMMAND_LINE = " (command line)"

Status = Literal["stored", "unchanged", "corrected"]


class Outcome(NamedTuple):
    """A stored outcome: the day it was observed, if known; when (milliseconds since 1970) and by
    whom it was reported.
    """

    late: bool
    observed: date | None
    recorded_ms: int
    caller: str


class OutcomeHistory(NamedTuple):
    """The outcome that counts, and those that it corrected, the oldest first."""

    now: Outcome
    before: list[Outcome]


class RecordedOutcome(NamedTuple):
    """The result of a valid row.

    `stored`: the first outcome of a decision, the caller's first, or the first that counts.
    `corrected`: it differs from an earlier one. `unchanged`: it added nothing. An outcome that was
    reported too early counts only if it is reported again from the day `first_counting_day` on.
    """

    row: int
    decision_id: bytes
    late: bool
    status: Status
    first_counting_day: date | None = None


class _Decision(NamedTuple):
    id: bytes
    loan_id: str | None
    purged: bool


class OutcomeRecorder:
    """Stores the outcomes of a request or a file, which may name each decision once.

    Keeps the decisions in memory: some 150 bytes each.
    """

    def __init__(
        self, database: Database, definition: Definition, who: str, of: str | None = None
    ) -> None:
        """`of`: look only at decisions made for this caller."""
        self._database, self._who, self._of = database, who, of
        self._reporter = _reporter(who)
        self._reader = OutcomeParser(definition)
        self._horizon = definition.roles.horizon
        self._rows: dict[bytes, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names that a row may have."""
        return self._reader.names

    def record(self, rows: Iterable[tuple[int, object]]) -> list[RecordedOutcome | list[Problem]]:
        """Store the outcomes of numbered rows, all valid ones in one transaction.

        Returns for each row, in order, its result or what is wrong with it. Raises
        LedgerUnavailable; then none is stored.
        """
        # A standby server may lack a decision that was made a moment ago.
        self._database.expect_writable()
        now = now_ms()
        read = [self._reader.parse(row, given, now // DAY_MS) for row, given in rows]
        placed = self._place([each for each in read if isinstance(each, ReportedOutcome)])
        checked: list[tuple[ReportedOutcome, bytes] | list[Problem]] = []
        fresh: dict[bytes, int] = {}
        for each in read:
            if not isinstance(each, ReportedOutcome):
                checked.append(each)
                continue
            decision = placed.get(each.decision_id or (each.loan_id, each.day))
            problem = self._refusal(each, decision, fresh)
            if problem is None and decision is not None:
                fresh[decision.id] = each.row
                checked.append((each, decision.id))
            else:
                checked.append([problem] if problem else [])
        good = [row for row in checked if isinstance(row, tuple)]
        kept = self._keep(good, now) if good else {}
        self._rows |= fresh
        return [row if isinstance(row, list) else kept[row[1]] for row in checked]

    def _place(self, reports: Sequence[ReportedOutcome]) -> dict[object, _Decision]:
        """Find the decisions that reports name: by id, or by loan and day."""
        by_id = [UUID(bytes=each.decision_id) for each in reports if each.decision_id]
        by_loan = [(each.loan_id, each.day) for each in reports if not each.decision_id]
        placed: dict[object, _Decision] = {}
        with self._database.reading() as connection:
            for ids in chunked(by_id, _NAMED):
                chosen = select(
                    decisions.c.id, decisions.c.loan_id, decisions.c.inputs.is_(None)
                ).where(decisions.c.id.in_(ids), self._looked_at())
                for made, loan_id, purged in connection.execute(chosen):
                    placed[made.bytes] = _Decision(made.bytes, loan_id, purged)
            for asked in chunked(list(dict.fromkeys(by_loan)), _NAMED):
                rows = _latest_of(asked, self._horizon, self._looked_at())
                for loan_id, day, made in connection.execute(rows):
                    before = placed.get((loan_id, day))
                    # Another spelling of the id may have a later decision.
                    if made is not None and (before is None or before.id < made.bytes):
                        placed[loan_id, day] = _Decision(made.bytes, loan_id, purged=False)
        return placed

    def _looked_at(self) -> ColumnElement[bool]:
        return true() if self._of is None else made_for(self._of)

    def _refusal(
        self, report: ReportedOutcome, decision: _Decision | None, fresh: dict[bytes, int]
    ) -> Problem | None:
        """Return what is wrong with a report, given its decision."""
        row, loan_id = report.row, show_value(report.loan_id)
        if report.decision_id is None:
            if decision is None:
                first, last = self._horizon
                day = date_of(report.day or 0)
                expected = f"a loan with a decision {first} to {last} days before {day}"
                return Problem(row, "loan_id", expected, loan_id)
        else:
            decision_id = uuid7.text(report.decision_id)
            if decision is None:
                return Problem(row, "id", "the id of a decision", decision_id)
            if decision.purged:
                return Problem(row, "id", "a decision that was not purged", decision_id)
            if report.loan_id not in (None, decision.loan_id and plain(decision.loan_id)):
                own = show_value(decision.loan_id)
                return Problem(row, "loan_id", f"the decision's own, {own}", loan_id)
            made = uuid7.milliseconds(decision.id) // DAY_MS
            if report.day is not None and report.day < made:
                expected = f"{date_of(made)}, the day of the decision, or later"
                return Problem(row, "date", expected, str(date_of(report.day)))
        before = fresh.get(decision.id, self._rows.get(decision.id))
        if before is None:
            return None
        field = "loan_id" if report.decision_id is None else "id"
        again = f"{uuid7.text(decision.id)} again, as in row {before}"
        return Problem(row, field, "one outcome of each decision", again)

    def _keep(
        self, good: Sequence[tuple[ReportedOutcome, bytes]], now: int
    ) -> dict[bytes, RecordedOutcome]:
        kept: dict[bytes, RecordedOutcome] = {}
        rows = []
        with self._database.writing() as connection:
            if not self._database.is_sqlite:
                connection.execute(_ALONE)
            known = latest_outcomes(connection, [made for _, made in good])
            for report, made in good:
                first_day, made_ms = self._horizon[0], uuid7.milliseconds(made)
                early = is_early(made_ms, now, first_day)
                status = self._status(report, known.get(made), early, made_ms)
                day = date_of(first_counting_day(made_ms, first_day)) if early else None
                kept[made] = RecordedOutcome(report.row, made, report.late, status, day)
                if status != "unchanged":
                    row = {"decision_id": UUID(bytes=made), "late": report.late}
                    row |= {"observed": report.day, "recorded_ms": now, "caller": self._who}
                    rows.append(row)
            if rows:
                connection.execute(insert(outcomes), rows)
        return kept

    def _status(
        self, report: ReportedOutcome, known: OutcomeHistory | None, early: bool, made_ms: int
    ) -> Status:
        """Return what a report adds.

        It is `unchanged` only if the same caller reported the same before: which outcomes are used
        for training depends on who reported them, so another caller's equal one does not count.
        """
        if known is None:
            return "stored"
        reported = [*known.before, known.now]
        own = [
            place
            for place, outcome in enumerate(reported)
            if _reporter(outcome.caller) == self._reporter
        ]
        # Compare with this caller's last one and those after it; else with the one that counts.
        since = reported[own[-1] :] if own else reported[-1:]
        day = None if report.day is None else date_of(report.day)
        if any(each.late != report.late or day not in (None, each.observed) for each in since):
            return "corrected"
        # The same as before, but the earlier report does not count.
        was_early = is_early(made_ms, since[0].recorded_ms, self._horizon[0])
        return "stored" if not own or (was_early and not early) else "unchanged"


def latest_outcomes(connection: Connection, wanted: Sequence[bytes]) -> dict[bytes, OutcomeHistory]:
    """Return the known outcomes of these decisions; decisions without one are absent."""
    known: dict[bytes, OutcomeHistory] = {}
    for ids in chunked([UUID(bytes=each) for each in wanted], _NAMED):
        rows = select(*_COLUMNS).where(outcomes.c.decision_id.in_(ids))
        for row in connection.execute(rows.order_by(outcomes.c.number)):
            made, outcome = _outcome(row)
            before = known.get(made)
            earlier = [] if before is None else [*before.before, before.now]
            known[made] = OutcomeHistory(outcome, earlier)
    return known


def _latest_of(
    asked: Sequence[tuple[str | None, int | None]],
    horizon: tuple[int, int],
    looked_at: ColumnElement[bool],
) -> Select[Any]:
    """Select, by loan and day, the latest decision whose age on the day is within the horizon.

    Returns one row for each spelling of the loan's id.
    """
    first, last = horizon
    bounds = [
        (day, uuid7.first_at((day - last) * DAY_MS), uuid7.first_at((day - first + 1) * DAY_MS))
        for day in {day for _, day in asked if day is not None}
    ]
    names = column("loan_id", String), column("spelt", String), column("day", Integer)
    loans = values(*names, name="loans")
    days = values(column("day", Integer), column("low", Id), column("high", Id), name="days")
    spelt = [(loan_id, text, day) for loan_id, day in asked for text in id_spellings(loan_id or "")]
    loan, span = loans.data(spelt).cte("loans"), days.data(bounds).cte("days")
    newest = (
        select(decisions.c.id)
        .where(decisions.c.loan_id == loan.c.spelt)
        .where(decisions.c.id >= span.c.low, decisions.c.id < span.c.high, looked_at)
        .order_by(decisions.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(loan.c.loan_id, loan.c.day, newest).join(span, span.c.day == loan.c.day)


def _reporter(caller: str) -> str:
    """Return who reports an outcome: all users of the command line count as one."""
    return COMMAND_LINE if caller.endswith(COMMAND_LINE) else caller


def _outcome(row: Row[Any]) -> tuple[bytes, Outcome]:
    made, late, observed, recorded_ms, caller = tuple(row)
    day = None if observed is None else date_of(observed)
    return made.bytes, Outcome(late, day, recorded_ms, caller)
