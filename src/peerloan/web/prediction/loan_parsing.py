"""From a request's body to checked loans: at once where all is well, closely where it is not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peerloan.loan import Checked, CheckedLoans, Problem, Suggestions
from peerloan.loan.text import show_given
from peerloan.loan.validation import show_name
from peerloan.web.http.foreign_formats import refuse_other_format
from peerloan.web.http.limits import MAX_LOANS, MAX_NAMES, MAX_PROBLEMS
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.request_body import decode
from peerloan.web.http.value_hints import add_hints
from peerloan.web.prediction.serving_models import LoadedModel

_ENCODED_TWICE = "; it is JSON within a text: send the object or list itself, encoded once"


def read(now: LoadedModel, content: bytes) -> Checked | CheckedLoans:
    """One loan (an object), or many (a list, or an object of lists); raises RequestError."""
    # What is as it should be is read and checked at once; anything else is looked at closely.
    if (one := now.decoder.loan(content)) is not None:
        return one
    suggestions = Suggestions()
    many = now.decoder.loans(content, MAX_LOANS, suggestions)
    many = many or now.decoder.columns(content, MAX_LOANS, suggestions)
    if many is not None:
        return many
    body = decode(content)
    if isinstance(body, dict):
        refuse_other_format(body, now.checks.allowed_names, now.bundle.definition.model)
        if not _are_columns(body):
            checked = _check(now, body, None, suggestions)
            _refuse([checked])
            return checked
    return _closely(now, body, suggestions)


def read_columns(now: LoadedModel, columns: Mapping[str, list[Any]]) -> CheckedLoans:
    """Many loans from columns of JSON-like values, at least one and no NaN; raises RequestError."""
    suggestions = Suggestions()
    many = now.decoder.lists(columns, MAX_LOANS, suggestions)
    if many is not None:
        return many
    return _closely(now, columns, suggestions)


def read_loans(now: LoadedModel, content: bytes) -> list[Checked]:
    """Every loan of a body with its own problems, however many; raises RequestError if it holds no
    loans.
    """
    body = decode(content)
    if isinstance(body, dict) and not _are_columns(body):
        return [_check(now, body, None, Suggestions())]
    return _many(now, body, Suggestions(), math.inf)


def _closely(now: LoadedModel, body: Any, suggestions: Suggestions) -> CheckedLoans:
    looked_at = _many(now, body, suggestions, MAX_PROBLEMS)
    _refuse(looked_at)
    return CheckedLoans.of(now.bundle.definition, looked_at)


def _are_columns(body: Mapping[str, Any]) -> bool:
    # A loan where one value is a list by mistake is a loan, and the check names that value.
    lists = sum(isinstance(value, list) for value in body.values())
    return lists > 0 and 2 * lists >= len(body)


def _many(
    now: LoadedModel, body: Any, suggestions: Suggestions, most_problems: float
) -> list[Checked]:
    records: Sequence[Any]
    if isinstance(body, dict):
        records = _rows(now, body, suggestions)
    elif isinstance(body, list):
        _limit(len(body))
        records = body
    else:
        raise RequestError(
            400,
            "No Loans",
            "expected a loan (an object), a list of loans, or columns (an object of lists), "
            f"given {show_given(body)}{_ENCODED_TWICE if _is_json_text(body) else ''}",
        )
    checked = []
    problems = 0
    for i, record in enumerate(records):
        checked.append(_check(now, record, i, suggestions))
        problems += len(checked[-1].problems)
        if problems > most_problems:
            break
    return checked


def _is_json_text(body: Any) -> bool:
    return isinstance(body, str) and body.lstrip()[:1] in ("{", "[")


def _limit(loans: int) -> None:
    if loans > MAX_LOANS:
        raise RequestError(
            413,
            "Too Many Loans",
            f"expected at most {MAX_LOANS:,} loans, given {loans:,}; "
            "send them in parts, or score the book as a file",
        )


def _check(now: LoadedModel, record: Any, index: int | None, suggestions: Suggestions) -> Checked:
    if isinstance(record, dict) and len(record) <= MAX_NAMES:
        checked = now.checks.loan(record, index, suggestions)
        if checked.problems:
            checked.problems = add_hints(now.bundle.definition, record, checked.problems)
        return checked
    expected, given = "an object of fields and values", show_given(record)
    if isinstance(record, dict):
        expected, given = f"at most {MAX_NAMES:,} fields", f"{len(record):,}"
    return Checked((), problems=[Problem(index, "(loan)", expected, given)])


def _rows(
    now: LoadedModel, columns: Mapping[str, Any], suggestions: Suggestions
) -> Sequence[dict[str, Any]]:
    """Columns, the client's own format, as records.

    Raises RequestError if columns are unknown, lacking or of other lengths: once each, not for
    each loan.
    """
    if len(columns) > MAX_NAMES:
        problem = Problem(None, "(columns)", f"at most {MAX_NAMES:,}", f"{len(columns):,}")
        raise RequestError(422, "Too Many Columns", sentence([problem]), [problem])
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    # Most columns are right where one is wrong.
    length = Counter(lengths.values()).most_common(1)[0][0]
    unknown = now.checks.names(columns, suggestions)
    problems = add_hints(now.bundle.definition, columns, unknown)
    problems += [
        Problem(
            None,
            show_name(name),
            f"a list of {_values(length)}, as in the other columns",
            _values(len(values)) if isinstance(values, list) else show_given(values),
        )
        for name, values in columns.items()
        if lengths.get(name) != length
    ]
    if problems:
        raise RequestError(422, "Wrong Columns", sentence(problems), problems)
    _limit(length)
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(count: int) -> str:
    return f"{count:,} value{'' if count == 1 else 's'}"


def _refuse(checked: Sequence[Checked]) -> None:
    problems = [problem for each in checked for problem in each.problems]
    if problems:
        raise RequestError(422, "Wrong Values", sentence(problems), problems)
