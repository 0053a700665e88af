"""A request's loans as the ledger keeps them, and back: compact JSON, each of a bounded size."""

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
    """A body that is one loan; raises RequestError 413 if it is too large to be kept."""
    loan = compact(content.removeprefix(codecs.BOM_UTF8))
    if len(loan) > MAX_LOAN_BYTES:
        raise _too_large(len(loan))
    return loan.decode("utf-8", "replace")


def list_inputs(content: bytes, loans: Sequence[Any] | None = None) -> list[str]:
    """The loans of a body that is a list of them; raises RequestError 422 that names those that are
    too large to be kept.

    `loans` are the same, parsed: of a body that is only nearly JSON they are written anew.
    """
    try:
        parts = _list.decode(compact(content.removeprefix(codecs.BOM_UTF8)))
        return _bounded([str(part, "utf-8") for part in parts])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if loans is None:
            raise
        return _bounded([_written(loan) for loan in loans])


def column_inputs(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Loans that were given in columns, each as one; raises as `list_inputs` does."""
    names = list(columns)
    return _bounded([_json(dict(zip(names, row, strict=True))) for row in _rows(columns)])


def record_input(record: Mapping[str, Any]) -> str:
    """A loan of a form; raises as `one_input` does."""
    loan = _json(record)
    if (size := size_in_bytes(loan)) > MAX_LOAN_BYTES:
        raise _too_large(size)
    return loan


def input_json(given: str) -> msgspec.Raw:
    """A kept loan as JSON: what was taken though it is only nearly JSON is null there."""
    try:
        msgspec.json.decode(given)
    except msgspec.MsgspecError:
        given = json.dumps(json.loads(given, parse_float=_finite, parse_constant=lambda _: None))
    # Releases before kept it with its spaces.
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
    # A lone surrogate, or a number of many digits, in a field that is ignored.
    except (ValueError, TypeError, OverflowError):
        return _written(record)


def _written(loan: Any) -> str:
    return json.dumps(loan, separators=(",", ":"))
