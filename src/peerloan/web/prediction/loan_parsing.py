"""Parses a request's loans once: to checked loans, and to compact JSON for the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peerloan.formatting import plural, show_value
from peerloan.loan import (
    Checked,
    CheckedLoans,
    Definition,
    LenientLoan,
    Problem,
    Suggestions,
    Understood,
    check_leniently,
    read_leniently,
)
from peerloan.loan.validation import show_name
from peerloan.web.http.foreign_formats import refuse_other_format
from peerloan.web.http.limits import MAX_LOANS, MAX_NAMES, MAX_PROBLEMS
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.request_body import decode
from peerloan.web.http.value_hints import add_hints, find_readings
from peerloan.web.prediction.input_json import (
    column_inputs,
    list_inputs,
    one_input,
    record_input,
    record_inputs,
)
from peerloan.web.prediction.serving_models import LoadedModel

# Checks a record; the second argument is its index in a list.
_Check = Callable[[dict[str, Any], int | None], Checked]
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
            checked = _check_record(
                body, None, _strict_check(model, suggestions, offers_lenient=True)
            )
            _refuse_problems([checked])
            return checked, [one_input(content)]
    loans = _check_loans(model, body, suggestions, offers_lenient=True)
    return loans, column_inputs(body) if isinstance(body, dict) else list_inputs(content, body)


def parse_loans_leniently(
    model: LoadedModel, content: bytes
) -> tuple[Checked | CheckedLoans, list[str], list[list[Understood]]]:
    """Parse the same bodies as `parse_loans`, with values spelled as people write them.

    Returns the loans, each loan as compact JSON, and how each was read. The JSON is that of the
    values as they were read. Raises RequestError that names each wrong field.
    """
    body = decode(content)
    suggestions = Suggestions()
    read: list[LenientLoan] = []
    names: dict[str, str] = {}

    def check(record: dict[str, Any], index: int | None) -> Checked:
        checked, loan = check_leniently(model.checks, record, index, suggestions)
        loan.names |= names
        read.append(loan)
        return checked

    if isinstance(body, dict):
        refuse_other_format(body, model.checks.allowed_names, model.bundle.definition.model)
        if not _are_columns(body):
            one = _check_record(body, None, check)
            _refuse_problems([one])
            return one, [record_input(read[0].record)], [read[0].understood]
        columns = read_leniently(model.bundle.definition, body, model.checks.known)
        _refuse_columns(columns.problems)
        names, body = columns.names, _rows(model, columns.record, suggestions)
    checked = _check_records(_as_list(body), check)
    _refuse_problems(checked)
    inputs = record_inputs([loan.record for loan in read])
    loans = CheckedLoans.of(model.bundle.definition, checked)
    return loans, inputs, [loan.understood for loan in read]


def understood_in(definition: Definition, content: bytes) -> list[list[Understood]]:
    """Return how each loan of a body is read by a definition; the body was accepted before."""
    body = decode(content)
    names: list[Understood] = []
    if isinstance(body, dict) and _are_columns(body):
        columns = read_leniently(definition, body)
        names, body = columns.understood, _as_records(columns.record)
    loans = body if isinstance(body, list) else [body]
    return [[*names, *read_leniently(definition, loan).understood] for loan in loans]


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
    return checked or _check_record(decode(content), None, _strict_check(model, Suggestions()))


def _check_loans(
    model: LoadedModel, body: Any, suggestions: Suggestions, offers_lenient: bool = False
) -> CheckedLoans:
    records = _rows(model, body, suggestions) if isinstance(body, dict) else _as_list(body)
    checked = _check_records(records, _strict_check(model, suggestions, offers_lenient))
    _refuse_problems(checked)
    return CheckedLoans.of(model.bundle.definition, checked)


def _are_columns(body: Mapping[str, Any]) -> bool:
    # A loan with a list by mistake is still a loan, and its check names the wrong value.
    lists = sum(isinstance(value, list) for value in body.values())
    return lists > 0 and 2 * lists >= len(body)


def _as_list(body: Any) -> list[Any]:
    """Return a body that must be a list of loans. Raises RequestError."""
    if not isinstance(body, list):
        raise RequestError(
            400,
            "No Loans",
            "expected a loan (an object), a list of loans, or columns (an object of lists), "
            f"given {show_value(body)}{_ENCODED_TWICE if _is_json_text(body) else ''}",
        )
    _refuse_too_many(len(body))
    return body


def _check_records(records: Sequence[Any], check: _Check) -> list[Checked]:
    """Check each loan of a body. Stops after MAX_PROBLEMS problems."""
    checked = []
    problems = 0
    for i, record in enumerate(records):
        checked.append(_check_record(record, i, check))
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


def _strict_check(
    model: LoadedModel, suggestions: Suggestions, offers_lenient: bool = False
) -> _Check:
    """Return the check of a loan by the model's definition, with hints at its problems."""

    def check(record: dict[str, Any], index: int | None) -> Checked:
        checked = model.checks.loan(record, index, suggestions)
        if checked.problems:
            definition, readings = model.bundle.definition, find_readings(model.checks, record)
            problems = checked.problems
            checked.problems = add_hints(definition, record, problems, readings, offers_lenient)
        return checked

    return check


def _check_record(record: Any, index: int | None, check: _Check) -> Checked:
    """Check a loan, if it is an object with at most MAX_NAMES names."""
    if isinstance(record, dict) and len(record) <= MAX_NAMES:
        return check(record, index)
    expected, given = "an object of fields and values", show_value(record)
    if isinstance(record, dict):
        expected, given = f"at most {MAX_NAMES:,} fields", f"{len(record):,}"
    return Checked((), problems=[Problem(index, "(loan)", expected, given)])


def _rows(
    model: LoadedModel, columns: Mapping[str, Any], suggestions: Suggestions
) -> list[dict[str, Any]]:
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
    _refuse_columns(problems)
    _refuse_too_many(length)
    return _as_records(columns)


def _refuse_columns(problems: list[Problem]) -> None:
    if problems:
        raise RequestError(422, "Wrong Columns", sentence(problems), problems)


def _as_records(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = list(columns)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _refuse_problems(checked: Sequence[Checked]) -> None:
    problems = [problem for each in checked for problem in each.problems]
    if problems:
        raise RequestError(422, "Wrong Values", sentence(problems), problems)
