"""Outcomes: whether loans with a decision were late, and all corrections of that."""

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

# Decisions or loans in one statement.
_STATEMENT_ITEMS = 1_000
_COLUMNS = [column for column in outcomes.c if column is not outcomes.c.number]
# Serializes outcome reports: two at once could both insert a first outcome.
_LOCK = text("SELECT pg_advisory_xact_lock(7382650322)")

# Suffix of a user's name, for outcomes reported on the command line. No token's name ends with it.
COMMAND_LINE = " (command line)"

Status = Literal["stored", "unchanged", "corrected"]


class Outcome(NamedTuple):
    """A stored outcome. `observed` is the day on which it was observed, if that was reported.

    `recorded_ms` is when it was reported (milliseconds since 1970), `caller` who reported it.
    """

    late: bool
    observed: date | None
    recorded_ms: int
    caller: str


class OutcomeHistory(NamedTuple):
    """The outcome that counts (`now`), and the earlier ones (`before`), the oldest first."""

    current: Outcome
    earlier: list[Outcome]


class RecordedOutcome(NamedTuple):
    """The result of a valid row.

    The status `stored`: the outcome is the first one of its decision, the caller's first one, or
    the first one that counts. `corrected`: it differs from an earlier one, and is stored too.
    `unchanged`: it equals an earlier one, and is not stored again. `first_counting_day` is set if
    the outcome was reported too early: it counts only if it is reported again from that day on.
    """

    row: int
    decision_id: bytes
    late: bool
    status: Status
    first_counting_day: date | None = None


class _Decision(NamedTuple):
    """The decision that a report belongs to."""

    id: bytes
    loan_id: str | None
    purged: bool


class OutcomeRecorder:
    """Stores the outcomes of a request or a file, in which each decision may occur once.

    Remembers the decisions of all rows: about 150 bytes each. Thread safety: none; make one for
    each request or file. It borrows the database.
    """

    def __init__(
        self, database: Database, definition: Definition, who: str, of: str | None = None
    ) -> None:
        """`who` reports the outcomes. With `of`, only decisions made for this caller count."""
        self._database, self._who, self._of = database, who, of
        self._reporter = _reporter(who)
        self._parser = OutcomeParser(definition)
        self._horizon = definition.roles.horizon
        self._rows: dict[bytes, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of values that a row may contain."""
        return self._parser.names

    def record(self, rows: Iterable[tuple[int, object]]) -> list[RecordedOutcome | list[Problem]]:
        """Store the outcomes of numbered rows, all valid ones in one transaction.

        Returns for each row, in order, its result or its problems. Raises LedgerUnavailable; then
        none is stored.
        """
        # A standby server may lack a decision that was made a moment ago.
        self._database.expect_writable()
        now = now_ms()
        parsed = [self._parser.parse(row, report, now // DAY_MS) for row, report in rows]
        decisions_by_key = self._find_decisions(
            [report for report in parsed if isinstance(report, ReportedOutcome)]
        )
        checked: list[tuple[ReportedOutcome, bytes] | list[Problem]] = []
        rows_by_decision: dict[bytes, int] = {}
        for report in parsed:
            if not isinstance(report, ReportedOutcome):
                checked.append(report)
                continue
            decision = decisions_by_key.get(report.decision_id or (report.loan_id, report.day))
            problem = self._find_problem(report, decision, rows_by_decision)
            if problem is None and decision is not None:
                rows_by_decision[decision.id] = report.row
                checked.append((report, decision.id))
            else:
                checked.append([problem] if problem else [])
        valid = [result for result in checked if isinstance(result, tuple)]
        recorded = self._store(valid, now) if valid else {}
        self._rows |= rows_by_decision
        return [result if isinstance(result, list) else recorded[result[1]] for result in checked]

    def _find_decisions(self, reports: Sequence[ReportedOutcome]) -> dict[object, _Decision]:
        """Find the decisions of reports, by the decision's id, or by loan and day."""
        ids = [UUID(bytes=report.decision_id) for report in reports if report.decision_id]
        loan_days = [(report.loan_id, report.day) for report in reports if not report.decision_id]
        by_key: dict[object, _Decision] = {}
        with self._database.reading() as connection:
            for some_ids in chunked(ids, _STATEMENT_ITEMS):
                rows = select(
                    decisions.c.id, decisions.c.loan_id, decisions.c.inputs.is_(None)
                ).where(decisions.c.id.in_(some_ids), self._is_visible())
                for decision_id, loan_id, purged in connection.execute(rows):
                    decision = _Decision(decision_id.bytes, loan_id, purged)
                    by_key[decision.id] = decision
            for some_loan_days in chunked(list(dict.fromkeys(loan_days)), _STATEMENT_ITEMS):
                latest = _latest_decisions(some_loan_days, self._horizon, self._is_visible())
                for loan_id, day, decision_id in connection.execute(latest):
                    previous = by_key.get((loan_id, day))
                    # Another spelling of the loan's id may have a later decision.
                    if decision_id is not None and (
                        previous is None or previous.id < decision_id.bytes
                    ):
                        decision = _Decision(decision_id.bytes, loan_id, purged=False)
                        by_key[loan_id, day] = decision
        return by_key

    def _is_visible(self) -> ColumnElement[bool]:
        """Select the decisions that the reporter may report outcomes of."""
        return true() if self._of is None else made_for(self._of)

    def _find_problem(
        self,
        report: ReportedOutcome,
        decision: _Decision | None,
        rows_by_decision: dict[bytes, int],
    ) -> Problem | None:
        """Return what is wrong with a report of a decision; None if it is valid.

        `rows_by_decision` has the rows of this call so far.
        """
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
                expected = f"the loan_id of the decision, {show_value(decision.loan_id)}"
                return Problem(row, "loan_id", expected, loan_id)
            made_day = uuid7.milliseconds(decision.id) // DAY_MS
            if report.day is not None and report.day < made_day:
                expected = f"the day of the decision, {date_of(made_day)}, or a later day"
                return Problem(row, "date", expected, str(date_of(report.day)))
        first_row = rows_by_decision.get(decision.id, self._rows.get(decision.id))
        if first_row is None:
            return None
        field = "loan_id" if report.decision_id is None else "id"
        repeated = f"{uuid7.text(decision.id)} again, as in row {first_row}"
        return Problem(row, field, "one outcome for each decision", repeated)

    def _store(
        self, reports: Sequence[tuple[ReportedOutcome, bytes]], now: int
    ) -> dict[bytes, RecordedOutcome]:
        """Store reports of decisions in one transaction; `now` is in milliseconds since 1970."""
        recorded: dict[bytes, RecordedOutcome] = {}
        rows = []
        with self._database.writing() as connection:
            if not self._database.is_sqlite:
                connection.execute(_LOCK)
            histories = latest_outcomes(connection, [decision_id for _, decision_id in reports])
            for report, decision_id in reports:
                first_day, made_ms = self._horizon[0], uuid7.milliseconds(decision_id)
                early = is_early(made_ms, now, first_day)
                status = self._status(report, histories.get(decision_id), early, made_ms)
                day = date_of(first_counting_day(made_ms, first_day)) if early else None
                recorded[decision_id] = RecordedOutcome(
                    report.row, decision_id, report.late, status, day
                )
                if status != "unchanged":
                    row = {"decision_id": UUID(bytes=decision_id), "late": report.late}
                    row |= {"observed": report.day, "recorded_ms": now, "caller": self._who}
                    rows.append(row)
            if rows:
                connection.execute(insert(outcomes), rows)
        return recorded

    def _status(
        self, report: ReportedOutcome, history: OutcomeHistory | None, early: bool, made_ms: int
    ) -> Status:
        """Return what a report adds to the decision's earlier outcomes.

        It is `unchanged` only if the same caller reported the same before. Another caller's equal
        outcome does not count, because training may use the outcomes of some callers only.
        """
        if history is None:
            return "stored"
        earlier = [*history.earlier, history.current]
        of_reporter = [
            place
            for place, outcome in enumerate(earlier)
            if _reporter(outcome.caller) == self._reporter
        ]
        # Compare with this caller's last outcome and those after it, or else with the last one.
        compared = earlier[of_reporter[-1] :] if of_reporter else earlier[-1:]
        day = None if report.day is None else date_of(report.day)
        if any(
            outcome.late != report.late or day not in (None, outcome.observed)
            for outcome in compared
        ):
            return "corrected"
        # The same as before, but the earlier report may not count.
        was_early = is_early(made_ms, compared[0].recorded_ms, self._horizon[0])
        return "stored" if not of_reporter or (was_early and not early) else "unchanged"


def latest_outcomes(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, OutcomeHistory]:
    """Return the outcomes of these decisions, by id; decisions without one are absent."""
    histories: dict[bytes, OutcomeHistory] = {}
    for some_ids in chunked([UUID(bytes=decision_id) for decision_id in ids], _STATEMENT_ITEMS):
        rows = select(*_COLUMNS).where(outcomes.c.decision_id.in_(some_ids))
        for row in connection.execute(rows.order_by(outcomes.c.number)):
            decision_id, outcome = _outcome(row)
            previous = histories.get(decision_id)
            earlier = [] if previous is None else [*previous.earlier, previous.current]
            histories[decision_id] = OutcomeHistory(outcome, earlier)
    return histories


def _latest_decisions(
    loan_days: Sequence[tuple[str | None, int | None]],
    horizon: tuple[int, int],
    is_visible: ColumnElement[bool],
) -> Select[Any]:
    """Select, by loan and day, the latest decision whose age on the day is within the horizon.

    Returns one row for each spelling of the loan's id.
    """
    first, last = horizon
    bounds = [
        (day, uuid7.first_at((day - last) * DAY_MS), uuid7.first_at((day - first + 1) * DAY_MS))
        for day in {day for _, day in loan_days if day is not None}
    ]
    columns = column("loan_id", String), column("spelt", String), column("day", Integer)
    loans = values(*columns, name="loans")
    days = values(column("day", Integer), column("low", Id), column("high", Id), name="days")
    spellings = [
        (loan_id, spelling, day)
        for loan_id, day in loan_days
        for spelling in id_spellings(loan_id or "")
    ]
    loan, span = loans.data(spellings).cte("loans"), days.data(bounds).cte("days")
    newest = (
        select(decisions.c.id)
        .where(decisions.c.loan_id == loan.c.spelt)
        .where(decisions.c.id >= span.c.low, decisions.c.id < span.c.high, is_visible)
        .order_by(decisions.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return select(loan.c.loan_id, loan.c.day, newest).join(span, span.c.day == loan.c.day)


def _reporter(caller: str) -> str:
    """Return who reports an outcome: all users of the command line count as one."""
    return COMMAND_LINE if caller.endswith(COMMAND_LINE) else caller


def _outcome(row: Row[Any]) -> tuple[bytes, Outcome]:
    decision_id, late, observed, recorded_ms, caller = tuple(row)
    day = None if observed is None else date_of(observed)
    return decision_id.bytes, Outcome(late, day, recorded_ms, caller)
