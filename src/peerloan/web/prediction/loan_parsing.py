"""Parses a request's body once, to checked loans and their compact JSON for the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peerloan.formatting import show_value
from peerloan.loan import Checked, CheckedLoans, Problem, Suggestions
from peerloan.loan.validation import show_name
from peerloan.web.http.foreign_formats import refuse_other_format
from peerloan.web.http.limits import MAX_LOANS, MAX_NAMES, MAX_PROBLEMS
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.request_body import decode
from peerloan.web.http.value_hints import add_hints
from peerloan.web.prediction.input_json import column_inputs, list_inputs, one_input
from peerloan.web.prediction.serving_models import LoadedModel

_ENCODED_TWICE = "; it is JSON within a text: send the object or list itself, encoded once"


def read(now: LoadedModel, content: bytes) -> tuple[Checked | CheckedLoans, list[str]]:
    """Parse one loan (an object), or many (a list, or an object of lists). Raises RequestError.

    Returns the checked loans by the model's definition, and each one's compact JSON.
    """
    # A valid loan is decoded and checked in one step; only others need detailed checks.
    if (one := now.decoder.loan(content)) is not None:
        return one, [one_input(content)]
    suggestions = Suggestions()
    if (many := now.decoder.loans(content, MAX_LOANS, suggestions)) is not None:
        return many, list_inputs(content)
    body = decode(content)
    if isinstance(body, dict):
        if (many := now.decoder.columns(body, MAX_LOANS, suggestions)) is not None:
            return many, column_inputs(body)
        refuse_other_format(body, now.checks.allowed_names, now.bundle.definition.model)
        if not _are_columns(body):
            checked = _check(now, body, None, suggestions)
            _refuse([checked])
            return checked, [one_input(content)]
    many = _closely(now, body, suggestions)
    return many, column_inputs(body) if isinstance(body, dict) else list_inputs(content, body)


def read_columns(
    now: LoadedModel, columns: Mapping[str, list[Any]]
) -> tuple[CheckedLoans, list[str]]:
    """Parse loans in columns of JSON-like values, at least one. Raises RequestError.

    Returns the checked loans, and each one's compact JSON.
    """
    suggestions = Suggestions()
    many = now.decoder.columns(columns, MAX_LOANS, suggestions)
    return many or _closely(now, columns, suggestions), column_inputs(columns)


def read_input(now: LoadedModel, loan: str) -> Checked:
    """Parse a stored loan by another version's definition; the result may have problems.

    Raises RequestError if it can't be parsed at all.
    """
    content = loan.encode()
    return now.decoder.loan(content) or _check(now, decode(content), None, Suggestions())


def _closely(now: LoadedModel, body: Any, suggestions: Suggestions) -> CheckedLoans:
    looked_at = _many(now, body, suggestions)
    _refuse(looked_at)
    return CheckedLoans.of(now.bundle.definition, looked_at)


def _are_columns(body: Mapping[str, Any]) -> bool:
    # A loan with one list by mistake is still a loan, and the check names that value.
    lists = sum(isinstance(value, list) for value in body.values())
    return lists > 0 and 2 * lists >= len(body)


def _many(now: LoadedModel, body: Any, suggestions: Suggestions) -> list[Checked]:
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
            f"given {show_value(body)}{_ENCODED_TWICE if _is_json_text(body) else ''}",
        )
    checked = []
    problems = 0
    for i, record in enumerate(records):
        checked.append(_check(now, record, i, suggestions))
        problems += len(checked[-1].problems)
        if problems > MAX_PROBLEMS:
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
    expected, given = "an object of fields and values", show_value(record)
    if isinstance(record, dict):
        expected, given = f"at most {MAX_NAMES:,} fields", f"{len(record):,}"
    return Checked((), problems=[Problem(index, "(loan)", expected, given)])


def _rows(
    now: LoadedModel, columns: Mapping[str, Any], suggestions: Suggestions
) -> Sequence[dict[str, Any]]:
    """Convert columns, the client's own format, to records.

    Raises RequestError if columns are unknown, missing or of different lengths: once for a column,
    not for each loan.
    """
    if len(columns) > MAX_NAMES:
        problem = Problem(None, "(columns)", f"at most {MAX_NAMES:,}", f"{len(columns):,}")
        raise RequestError(422, "Too Many Columns", sentence([problem]), [problem])
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    # If one column is wrong, most are right.
    length = Counter(lengths.values()).most_common(1)[0][0]
    unknown = now.checks.names(columns, suggestions)
    problems = add_hints(now.bundle.definition, columns, unknown)
    problems += [
        Problem(
            None,
            show_name(name),
            f"a list of {_values(length)}, as in the other columns",
            _values(len(values)) if isinstance(values, list) else show_value(values),
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
