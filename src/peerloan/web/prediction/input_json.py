"""A request's loans as compact JSON for the ledger, each of limited size, and back."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from peerloan.ledger.write.loan_json import (
    LOAN_EXPECTED,
    MAX_LOAN_BYTES,
    compact,
    size_in_bytes,
)
from peerloan.loan import Problem
from peerloan.web.http.problems import RequestError, sentence


def one_input(content: bytes) -> str:
    """Return a body with one loan as compact JSON. Raises RequestError 413 if it is too large."""
    loan = compact(content.removeprefix(codecs.BOM_UTF8))
    if len(loan) > MAX_LOAN_BYTES:
        raise _too_large(len(loan))
    return loan.decode("utf-8", "replace")


def list_inputs(content: bytes, loans: Sequence[Any] | None = None) -> list[str]:
    """Return each loan of a body with a list as compact JSON.

    Raises RequestError 422 that names the loans that are too large. `loans` are the same loans,
    decoded: they are encoded again if the body is only near-JSON.
    """
    try:
        parts = _list.decode(compact(content.removeprefix(codecs.BOM_UTF8)))
        return _bounded([str(part, "utf-8") for part in parts])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if loans is None:
            raise
        return _bounded([_written(loan) for loan in loans])


def column_inputs(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return each loan of columns as compact JSON. Raises the errors of `list_inputs`."""
    names = list(columns)
    return _bounded([_json(dict(zip(names, row, strict=True))) for row in _rows(columns)])


def record_input(record: Mapping[str, Any]) -> str:
    """Return a form's loan as compact JSON. Raises the errors of `one_input`."""
    loan = _json(record)
    if (size := size_in_bytes(loan)) > MAX_LOAN_BYTES:
        raise _too_large(size)
    return loan


def input_json(given: str) -> msgspec.Raw:
    """Return a stored loan as JSON; values that are only near-JSON, such as NaN, become null."""
    try:
        msgspec.json.decode(given)
    except msgspec.MsgspecError:
        given = json.dumps(json.loads(given, parse_float=_finite, parse_constant=lambda _: None))
    # Earlier releases stored it with whitespace.
    return msgspec.Raw(compact(given.encode()))


_list = msgspec.json.Decoder(list[msgspec.Raw])


def _too_large(size: int) -> RequestError:
    detail = f"the loan: expected {LOAN_EXPECTED}, given {size:,}; send its fields alone"
    return RequestError(413, "Loan Too Large", detail)


def _bounded(loans: list[str]) -> list[str]:
    problems = [
        Problem(i, "(loan)", LOAN_EXPECTED, f"{size:,}")
        for i, loan in enumerate(loans)
        if (size := size_in_bytes(loan)) > MAX_LOAN_BYTES
    ]
    if problems:
        raise RequestError(422, "Loans Too Large", sentence(problems), problems)
    return loans


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _rows(columns: Mapping[str, Sequence[Any]]) -> Iterable[tuple[Any, ...]]:
    return zip(*columns.values(), strict=True)


def _json(record: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(record).decode()
    # An unpaired surrogate, or a number with many digits, in a field that is ignored.
    except (ValueError, TypeError, OverflowError):
        return _written(record)


def _written(loan: Any) -> str:
    return json.dumps(loan, separators=(",", ":"))
