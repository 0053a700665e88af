"""Early outcomes: reported before the first day on which an outcome can be known.

They are stored, and may be reported again later. Monitoring and training don't use them. Days are
in UTC, as everywhere in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import BigInteger, ColumnElement, and_, false, literal_column, or_

from peerloan.clock import DAY_MS
from peerloan.database.tables import decisions, outcomes

# A literal, not a bound parameter: PostgreSQL must see the same constant in SELECT and GROUP BY.
A_DAY = literal_column(str(DAY_MS), BigInteger)
# An expression, not the column: SQLite would use the column's index and read all decisions of a
# version.
_version = decisions.c.version + 0
# Age of the decision in days when its outcome was reported.
_age = outcomes.c.recorded_ms // A_DAY - decisions.c.time_ms // A_DAY


def first_counting_day(made_ms: int, first_day: int) -> int:
    """Return the first day (days since 1970) on which an outcome of a decision counts.

    `made_ms` is when the decision was made (milliseconds since 1970). The outcome counts from
    `first_day` days after that day on.
    """
    return made_ms // DAY_MS + first_day


def is_early(made_ms: int, recorded_ms: int, first_day: int) -> bool:
    """Return whether an outcome was reported before the first day on which it counts."""
    return recorded_ms // DAY_MS < first_counting_day(made_ms, first_day)


def is_timely(first_day: int) -> ColumnElement[bool]:
    """Select the outcomes that are not early, from `outcomes` joined with `decisions`."""
    return _age >= first_day


def early_by_version(first_days: Mapping[int, int]) -> ColumnElement[bool]:
    """Select the early outcomes. `first_days` has each version's first day, by its number."""
    return or_(
        false(),
        *(
            and_(_version.in_(list(numbers)), _age < first_day)
            for first_day, numbers in _grouped(first_days).items()
        ),
    )


def _grouped(first_days: Mapping[int, int]) -> dict[int, Iterable[int]]:
    numbers_by_day: dict[int, list[int]] = {}
    for number, first_day in first_days.items():
        numbers_by_day.setdefault(first_day, []).append(number)
    return dict(numbers_by_day)
