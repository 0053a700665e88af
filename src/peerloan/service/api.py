"""The REST API: predictions for one loan, a list, or columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, request

from peerloan.loan import Checked, CheckedLoans, Problem
from peerloan.loan.checks import show_name
from peerloan.loan.text import show_given
from peerloan.service import openapi
from peerloan.service.answers import Wanted, answer_many, answer_one
from peerloan.service.bodies import MAX_PROBLEMS, decode, read_body
from peerloan.service.champion import Champion, Serving
from peerloan.service.problems import RequestError, sentence

blueprint = Blueprint("api", __name__)
MAX_LOANS = 10_000
MAX_BODY_BYTES = 5_000_000
# Each unknown name is compared with every known one: 5 MB of them would keep a worker busy for a
# minute.
MAX_NAMES = 1_000
_USUAL = Wanted()
_FLAGS = {
    "contributions": {"all": True, "none": False},
    "reasons": {"all": True, "none": False},
    "what_if": {"true": True, "false": False},
}


def champion() -> Champion:
    """The application's champion."""
    return current_app.extensions["champion"]  # type: ignore[no-any-return]


def serving() -> Serving:
    """The version that answers this request; raises RequestError while there is none."""
    here = champion()
    current = here.current
    if current is None:
        refusal = here.refusal
        why = f"the champion was refused: {refusal}" if refusal else "train and promote one"
        raise RequestError(
            503,
            "No Champion",
            f"No model version is being served yet; {why}.",
            headers={"Retry-After": "2"},
        )
    return current


@blueprint.post("/v1/predictions")
def predictions() -> Response:
    """Predict for one loan (an object), a list of loans, or columns (an object of lists)."""
    environ = request.environ
    wanted = _wanted(request.args.to_dict(flat=False)) if environ.get("QUERY_STRING") else _USUAL
    if environ.get("CONTENT_TYPE") != "application/json" and not request.is_json:
        raise RequestError(
            415,
            "Unsupported Media Type",
            "expected application/json, given "
            + (show_given(request.mimetype) if request.mimetype else "nothing"),
        )
    content = read_body(environ, MAX_BODY_BYTES)
    now = serving()
    # What is as it should be is read and checked at once; anything else is looked at closely.
    if (one := now.decoder.loan(content)) is not None:
        return as_json(answer_one(now, one, wanted))
    many = now.decoder.loans(content, MAX_LOANS) or now.decoder.columns(content, MAX_LOANS)
    if many is not None:
        return as_json(answer_many(now, many, wanted))
    body = decode(content)
    if isinstance(body, dict) and not _are_columns(body):
        checked = _check(now, body, None)
        _refuse([checked])
        return as_json(answer_one(now, checked, wanted))
    many = CheckedLoans.of(now.bundle.definition, _many(now, body))
    return as_json(answer_many(now, many, wanted))


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """This API, described for the champion that serves now."""
    return as_json(openapi.document(serving()))


def _wanted(args: Mapping[str, list[str]]) -> Wanted:
    flags = {}
    problems = []
    for name, values in args.items():
        choices = _FLAGS.get(name)
        if choices is None:
            expected = f"one of the parameters {', '.join(_FLAGS)}"
            problems.append(Problem(None, f"?{name[:50]}", expected, show_given(values[-1])))
        elif len(values) > 1 or values[0] not in choices:
            expected, given = " or ".join(choices), " and ".join(map(show_given, values[:3]))
            problems.append(Problem(None, f"?{name}", expected, given))
        else:
            flags[name] = choices[values[0]]
    if problems:
        raise RequestError(400, "Wrong Parameters", sentence(problems), problems)
    return Wanted(**flags)


def _are_columns(body: Mapping[str, Any]) -> bool:
    # A loan where one value is a list by mistake is a loan, and the check names that value.
    lists = sum(isinstance(value, list) for value in body.values())
    return lists > 0 and 2 * lists >= len(body)


def _many(now: Serving, body: Any) -> list[Checked]:
    records: Sequence[Any]
    if isinstance(body, dict):
        records = _rows(now, body)
    elif isinstance(body, list):
        _limit(len(body))
        records = body
    else:
        raise RequestError(
            400,
            "No Loans",
            "expected a loan (an object), a list of loans, or columns (an object of lists), "
            f"given {show_given(body)}",
        )
    checked = []
    problems = 0
    for i, record in enumerate(records):
        checked.append(_check(now, record, i))
        problems += len(checked[-1].problems)
        if problems > MAX_PROBLEMS:
            break
    _refuse(checked)
    return checked


def _limit(loans: int) -> None:
    if loans > MAX_LOANS:
        raise RequestError(
            413,
            "Too Many Loans",
            f"expected at most {MAX_LOANS:,} loans, given {loans:,}; "
            "send them in parts, or score the book as a file",
        )


def _check(now: Serving, record: Any, index: int | None) -> Checked:
    if isinstance(record, dict) and len(record) <= MAX_NAMES:
        return now.checks.loan(record, index)
    expected, given = "an object of fields and values", show_given(record)
    if isinstance(record, dict):
        expected, given = f"at most {MAX_NAMES:,} fields", f"{len(record):,}"
    return Checked((), problems=[Problem(index, "(loan)", expected, given)])


def _rows(now: Serving, columns: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
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
    problems = now.checks.names(columns)
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


def as_json(body: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(body), status, content_type="application/json")
