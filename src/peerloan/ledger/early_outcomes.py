"""Early outcomes: told of a decision before the first day on which an outcome can be known.

They are kept, and whoever told them may tell again; no figure, rule or version uses them. Days are
those of UTC, as everywhere in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import BigInteger, ColumnElement, and_, false, literal_column, or_

from peerloan.clock import DAY_MS
from peerloan.database.tables import decisions, outcomes

# Not a parameter: PostgreSQL would not see that it is the same wherever the day stands.
A_DAY = literal_column(str(DAY_MS), BigInteger)
# Not the column itself: SQLite would read all decisions of a version by its index.
_version = decisions.c.version + 0
# How many days old the decision was when its outcome was told.
_age = outcomes.c.recorded_ms // A_DAY - decisions.c.time_ms // A_DAY


def counts_from(made_ms: int, first_day: int) -> int:
    """The first day (days since 1970) on which an outcome of a decision counts: so many days after
    the day on which it was made.
    """
    return made_ms // DAY_MS + first_day


def is_early(made_ms: int, recorded_ms: int, first_day: int) -> bool:
    """Whether an outcome was told before it counts."""
    return recorded_ms // DAY_MS < counts_from(made_ms, first_day)


def in_time(first_day: int) -> ColumnElement[bool]:
    """The same of rows of `outcomes` joined with their `decisions`: those that are not early."""
    return _age >= first_day


def early_by_version(first_days: Mapping[int, int]) -> ColumnElement[bool]:
    """The rows that are early, given each version's first day by its number in the ledger."""
    return or_(
        false(),
        *(
            and_(_version.in_(list(numbers)), _age < first_day)
            for first_day, numbers in _grouped(first_days).items()
        ),
    )


def _grouped(first_days: Mapping[int, int]) -> dict[int, Iterable[int]]:
    found: dict[int, list[int]] = {}
    for number, first_day in first_days.items():
        found.setdefault(first_day, []).append(number)
    return dict(found)
