"""From a body's bytes to Python values: JSON, and each name in it once."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from typing import Any

import msgspec

from peerloan.loan import Problem
from peerloan.loan.checks import show_name
from peerloan.service.problems import RequestError, sentence

MAX_PROBLEMS = 100_000
_COLON = re.compile(rb'"\s*:')


def decode(content: bytes) -> Any:
    """JSON as Python values; raises RequestError 400 if it is none, 422 if a name stands twice.

    Of two values of one name readers take either: a decision must not depend on whose it was.
    """
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        value = _decode_nearly(content, str(error))
    # Each name has a colon behind it, so most bodies need no second look.
    if len(_COLON.findall(content)) > _names(value) and (twice := _repeated(content)):
        raise RequestError(422, "Repeated Names", sentence(twice), twice)
    return value


def _decode_nearly(content: bytes, reason: str) -> Any:
    """What is nearly JSON (NaN, 1e400, a lone surrogate), so that the check of values can name the
    field that holds it.
    """
    try:
        # JSON on a network is UTF-8 (RFC 8259).
        return json.loads(content.decode("utf-8-sig"), parse_int=_whole)
    except (ValueError, RecursionError):
        raise RequestError(400, "Not JSON", f"the body can't be read as JSON: {reason}") from None


def _whole(digits: str) -> float:
    """A whole number of any length: as a double, which for thousands of digits is infinite."""
    return int(digits) if len(digits) < 400 else float(digits)


def _names(value: Any) -> int:
    """The names of a loan, of columns, or of a list of loans."""
    objects = value if isinstance(value, list) else [value]
    return sum(len(each) for each in objects if isinstance(each, dict))


def _repeated(content: bytes) -> list[Problem]:
    """The names that stand more than once in an object, by loan if there is a list of them."""
    try:
        read = json.loads(content.decode("utf-8-sig"), parse_int=_whole, object_pairs_hook=_Object)
    except RecursionError:
        return []  # what is nested too deep for this reader holds no loan
    loans = enumerate(read) if isinstance(read, list) else [(None, read)]
    problems = (
        Problem(index, show_name(name), "each name once", f"{count:,} values")
        for index, loan in loans
        if isinstance(loan, _Object)
        for name, count in loan.counts.items()
        if count > 1
    )
    return list(itertools.islice(problems, MAX_PROBLEMS))


class _Object(dict[str, Any]):
    """An object as it was written: how often each of its names stands in it."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.counts = Counter(name for name, _ in pairs)
