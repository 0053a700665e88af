"""Parses a request's loans once: to checked loans, and to compact JSON for the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peerloan.formatting import plural, show_value
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


def parse_loans(model: LoadedModel, content: bytes) -> tuple[Checked | CheckedLoans, list[str]]:
    """Parse a body with one loan (an object) or many (a list, or an object of lists).

    Returns the loans, checked by the model's definition, and each loan as compact JSON. Raises
    RequestError that names each wrong field.
    """
    # The decoder parses and checks valid loans in one step. Other loans are checked field by field
    # below, which is slower.
    if (loan := model.decoder.loan(content)) is not None:
        return loan, [one_input(content)]
    suggestions = Suggestions()
    if (loans := model.decoder.loans(content, MAX_LOANS, suggestions)) is not None:
        return loans, list_inputs(content)
    body = decode(content)
    if isinstance(body, dict):
        if (loans := model.decoder.columns(body, MAX_LOANS, suggestions)) is not None:
            return loans, column_inputs(body)
        refuse_other_format(body, model.checks.allowed_names, model.bundle.definition.model)
        if not _are_columns(body):
            checked = _check_record(model, body, None, suggestions)
            _refuse_problems([checked])
            return checked, [one_input(content)]
    loans = _check_loans(model, body, suggestions)
    return loans, column_inputs(body) if isinstance(body, dict) else list_inputs(content, body)


def parse_columns(
    model: LoadedModel, columns: Mapping[str, list[Any]]
) -> tuple[CheckedLoans, list[str]]:
    """Parse loans in columns of JSON-like values; there must be at least one column.

    Returns the checked loans, and each loan as compact JSON. Raises RequestError that names each
    wrong field.
    """
    suggestions = Suggestions()
    loans = model.decoder.columns(columns, MAX_LOANS, suggestions)
    return loans or _check_loans(model, columns, suggestions), column_inputs(columns)


def parse_stored_loan(model: LoadedModel, loan: str) -> Checked:
    """Parse a loan of another version, as the ledger stores it; the result may have problems.

    Raises RequestError if the loan can't be parsed at all.
    """
    content = loan.encode()
    checked = model.decoder.loan(content)
    return checked or _check_record(model, decode(content), None, Suggestions())


def _check_loans(model: LoadedModel, body: Any, suggestions: Suggestions) -> CheckedLoans:
    checked = _check_records(model, body, suggestions)
    _refuse_problems(checked)
    return CheckedLoans.of(model.bundle.definition, checked)


def _are_columns(body: Mapping[str, Any]) -> bool:
    # A loan with a list by mistake is still a loan, and its check names the wrong value.
    lists = sum(isinstance(value, list) for value in body.values())
    return lists > 0 and 2 * lists >= len(body)


def _check_records(model: LoadedModel, body: Any, suggestions: Suggestions) -> list[Checked]:
    """Check each loan of a body. Stops after MAX_PROBLEMS problems."""
    records: Sequence[Any]
    if isinstance(body, dict):
        records = _rows(model, body, suggestions)
    elif isinstance(body, list):
        _refuse_too_many(len(body))
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
        checked.append(_check_record(model, record, i, suggestions))
        problems += len(checked[-1].problems)
        if problems > MAX_PROBLEMS:
            break
    return checked


def _is_json_text(body: Any) -> bool:
    return isinstance(body, str) and body.lstrip()[:1] in ("{", "[")


def _refuse_too_many(loans: int) -> None:
    if loans > MAX_LOANS:
        raise RequestError(
            413,
            "Too Many Loans",
            f"expected at most {MAX_LOANS:,} loans, given {loans:,}; "
            "send them in parts, or score them as a file: peerloan score FILE",
        )


def _check_record(
    model: LoadedModel, record: Any, index: int | None, suggestions: Suggestions
) -> Checked:
    if isinstance(record, dict) and len(record) <= MAX_NAMES:
        checked = model.checks.loan(record, index, suggestions)
        if checked.problems:
            checked.problems = add_hints(model.bundle.definition, record, checked.problems)
        return checked
    expected, given = "an object of fields and values", show_value(record)
    if isinstance(record, dict):
        expected, given = f"at most {MAX_NAMES:,} fields", f"{len(record):,}"
    return Checked((), problems=[Problem(index, "(loan)", expected, given)])


def _rows(
    model: LoadedModel, columns: Mapping[str, Any], suggestions: Suggestions
) -> Sequence[dict[str, Any]]:
    """Convert columns (an object of lists) to records.

    Raises RequestError if columns are unknown, missing or of different lengths. It has one problem
    for each such column, not one for each loan.
    """
    if len(columns) > MAX_NAMES:
        problem = Problem(None, "(columns)", f"at most {MAX_NAMES:,}", f"{len(columns):,}")
        raise RequestError(422, "Too Many Columns", sentence([problem]), [problem])
    lengths = {name: len(values) for name, values in columns.items() if isinstance(values, list)}
    # The length of most columns is taken as the right one.
    length = Counter(lengths.values()).most_common(1)[0][0]
    unknown = model.checks.names(columns, suggestions)
    problems = add_hints(model.bundle.definition, columns, unknown)
    problems += [
        Problem(
            None,
            show_name(name),
            f"a list of {plural(length, 'value')}, as in the other columns",
            plural(len(values), "value") if isinstance(values, list) else show_value(values),
        )
        for name, values in columns.items()
        if lengths.get(name) != length
    ]
    if problems:
        raise RequestError(422, "Wrong Columns", sentence(problems), problems)
    _refuse_too_many(length)
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _refuse_problems(checked: Sequence[Checked]) -> None:
    problems = [problem for each in checked for problem in each.problems]
    if problems:
        raise RequestError(422, "Wrong Values", sentence(problems), problems)
