"""Converts a request's loans to compact JSON for the ledger, with a size limit, and back."""

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
    """Return the one loan of a body as compact JSON. Raises RequestError 413 if it is too large."""
    loan = compact(content.removeprefix(codecs.BOM_UTF8))
    if len(loan) > MAX_LOAN_BYTES:
        raise _too_large(len(loan))
    return loan.decode("utf-8", "replace")


def list_inputs(content: bytes, loans: Sequence[Any] | None = None) -> list[str]:
    """Return each loan of a body with a list as compact JSON.

    `loans` are the same loans after decoding. They are needed if the body is not strictly JSON (for
    example, it has NaN): then they are encoded again. Raises RequestError 422 that names the loans
    that are too large.
    """
    try:
        parts = _list_decoder.decode(compact(content.removeprefix(codecs.BOM_UTF8)))
        return _refuse_large([str(part, "utf-8") for part in parts])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        if loans is None:
            raise
        return _refuse_large([_encode_leniently(loan) for loan in loans])


def column_inputs(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return each loan of columns as compact JSON. Raises the errors of `list_inputs`."""
    names = list(columns)
    return record_inputs([dict(zip(names, row, strict=True)) for row in _rows(columns)])


def record_inputs(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each of many loans as compact JSON. Raises the errors of `list_inputs`."""
    return _refuse_large([_encode(record) for record in records])


def record_input(record: Mapping[str, Any]) -> str:
    """Return one loan as compact JSON. Raises the errors of `one_input`."""
    loan = _encode(record)
    if (size := size_in_bytes(loan)) > MAX_LOAN_BYTES:
        raise _too_large(size)
    return loan


def input_json(stored: str) -> msgspec.Raw:
    """Return a stored loan as strict JSON; NaN and infinity, which JSON does not have, are null."""
    try:
        msgspec.json.decode(stored)
    except msgspec.MsgspecError:
        loan = json.loads(stored, parse_float=_finite, parse_constant=lambda _: None)
        stored = json.dumps(loan)
    # Earlier releases stored loans with whitespace.
    return msgspec.Raw(compact(stored.encode()))


_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def _too_large(size: int) -> RequestError:
    detail = f"the loan: expected {LOAN_EXPECTED}, given {size:,}; send only the model's fields"
    return RequestError(413, "Loan Too Large", detail)


def _refuse_large(loans: list[str]) -> list[str]:
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


def _encode(record: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(record).decode()
    # An ignored field may have an unpaired surrogate, or a number with very many digits.
    except (ValueError, TypeError, OverflowError):
        return _encode_leniently(record)


def _encode_leniently(loan: Any) -> str:
    """Encode a loan with values that strict JSON does not have, such as NaN."""
    return json.dumps(loan, separators=(",", ":"))
