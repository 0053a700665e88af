"""Parses outcome reports: items of a request, or rows of a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID

from peerloan.clock import date_of, day_number
from peerloan.formatting import show_value
from peerloan.loan import Definition, Label, Problem
from peerloan.loan.labels import expected_label, read_label
from peerloan.loan.validation import WrongValue, check_id, show_name

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# Unknown names that are reported for a row: a body may contain a million.
_MAX_UNKNOWN_NAMES = 10
_DEFAULT_LABEL = {"late": Label("late", late=True, on_time=False)}


class ReportedOutcome(NamedTuple):
    """A reported outcome of a decision, or of a loan as observed on a day.

    `row` is the number of the report in its request or table. `day` is in days since 1970, in UTC.
    """

    row: int
    decision_id: bytes | None
    loan_id: str | None
    day: int | None
    late: bool


class OutcomeParser:
    """Parses reports. A report may use the loan definition's names of the label and the id."""

    def __init__(self, definition: Definition) -> None:
        self.labels = _DEFAULT_LABEL | {definition.label.column: definition.label}
        self.loan_names = tuple(dict.fromkeys(("loan_id", definition.roles.id or "loan_id")))
        self.names = ("id", *self.loan_names, "date", *self.labels)

    def parse(self, row: int, report: object, today: int) -> ReportedOutcome | list[Problem]:
        """Parse a report from JSON-like values by name, or return all its problems.

        `today` is in days since 1970: a later day of observation is a problem.
        """
        if not isinstance(report, Mapping):
            return [Problem(row, "(outcome)", "an object", show_value(report))]
        reading = _Reading(row, report)
        unknown = (name for name in report if name not in self.names)
        for name in islice(unknown, _MAX_UNKNOWN_NAMES):
            reading.refuse(show_name(name), f"only {', '.join(self.names)}", name)
        decision_id = reading.decision_id()
        loan_id = reading.loan_id(self.loan_names)
        day = reading.day(today)
        late = reading.late(self.labels)
        if report.get("id") is None:
            if not any(report.get(name) is not None for name in self.loan_names):
                expected = "a decision's id, or a loan_id and a date"
                reading.refuse(reading.first(("id", *self.loan_names)), expected, "id")
            elif report.get("date") is None:
                reading.refuse(
                    "date", "the day on which the outcome was observed, such as 2026-11-25", "date"
                )
        if reading.problems or late is None:
            return reading.problems
        return ReportedOutcome(row, decision_id, loan_id, day, late)


class _Reading:
    """A report that is being parsed, and its problems so far."""

    def __init__(self, row: int, report: Mapping[str, Any]) -> None:
        self._row, self._report = row, report
        self.problems: list[Problem] = []

    def refuse(self, field: str, expected: str, name: str) -> None:
        """Add a problem of a field; `name` is the report's name of the wrong value."""
        value = self._report.get(name)
        shown = "nothing" if value is None else show_value(value)
        self.problems.append(Problem(self._row, field, expected, shown))

    def first(self, names: tuple[str, ...]) -> str:
        """Return the first of these names that the report has; otherwise the first name."""
        return next((name for name in names if name in self._report), names[0])

    def decision_id(self) -> bytes | None:
        value = self._report.get("id")
        if value is None:
            return None
        try:
            if isinstance(value, str) and len(value) == 36:
                return UUID(value).bytes
        except ValueError:
            pass
        self.refuse("id", "a decision's id, which is a UUID", "id")
        return None

    def loan_id(self, names: tuple[str, ...]) -> str | None:
        first_id = None
        for name in names:
            try:
                loan_id = check_id(self._report.get(name))
            except WrongValue as error:
                self.refuse(name, str(error), name)
                continue
            if loan_id is not None and first_id not in (None, loan_id):
                self.refuse(
                    name, f"the same id as in the other field, {show_value(first_id)}", name
                )
            first_id = first_id or loan_id
        return first_id

    def day(self, today: int) -> int | None:
        value = self._report.get("date")
        if value is None:
            return None
        try:
            if isinstance(value, str) and _DAY.fullmatch(value):
                day = day_number(date.fromisoformat(value))
                if day <= today:
                    return day
                self.refuse("date", f"today ({date_of(today)}) or an earlier day", "date")
                return None
        except ValueError:
            pass
        self.refuse("date", "a day, such as 2026-11-25", "date")
        return None

    def late(self, labels: Mapping[str, Label]) -> bool | None:
        present = [name for name in labels if self._report.get(name) is not None]
        if len(present) > 1:
            self.refuse(present[1], f"only {present[0]} or {present[1]}, not both", present[1])
            return None
        name = present[0] if present else self.first(tuple(labels))
        value, label = self._report.get(name), labels[name]
        if isinstance(value, bool | int | float | str):
            late = read_label(value, label)
            if late is not None:
                return late
        self.refuse(name, expected_label(label), name)
        return None
