"""A request's body: reading it, and from its bytes to Python values, each name in them once."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections import Counter
from typing import Any

import msgspec
from flask import request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from peerloan.loan import Problem
from peerloan.loan.checks import show_name
from peerloan.loan.decoding import may_repeat
from peerloan.service.problems import RequestError, sentence

# Wrong values that an answer names; loans beyond them are not looked at.
MAX_PROBLEMS = 100_000
# Of a body that is too large, so much is read and dropped before the answer: a client that is still
# sending when the connection closes never reads why.
_MOST_DROPPED_BYTES = 100_000_000
_MOST_DROPPED_SECONDS = 5.0


def read_body(*, form: bool = False) -> bytes:
    """The request's body; with `form`, a form's stands in `request.form` afterwards.

    What is wrong with its transport is told apart: raises RequestError 400 or 408, or
    RequestEntityTooLarge.
    """
    try:
        return request.get_data(cache=form, parse_form_data=form)
    except RequestEntityTooLarge:
        _drop_body()
        raise
    except ParseException:
        raise RequestError(400, "Broken Body", "the body's chunks can't be read") from None
    except (OSError, ClientDisconnected):
        # Gunicorn would wait for the rest, here and again in the thread that accepts.
        with contextlib.suppress(KeyError, OSError):
            request.environ["gunicorn.socket"].shutdown(socket.SHUT_RD)
        detail = "the body did not arrive in time"
        raise RequestError(408, "Request Timeout", detail) from None


def _drop_body() -> None:
    # Each read may wait for a silent client for as long as any other.
    until, left = time.monotonic() + _MOST_DROPPED_SECONDS, _MOST_DROPPED_BYTES
    if (request.content_length or 0) > left:
        return
    try:
        while left > 0 and time.monotonic() < until:
            dropped = len(request.environ["wsgi.input"].read(min(left, 65_536)))
            if not dropped:
                return
            left -= dropped
    except (ParseException, OSError):
        return  # it is refused already


def decode(content: bytes) -> Any:
    """JSON as Python values; raises RequestError 400 if it is none, 422 if a name stands twice.

    Of two values of one name readers take either: a decision must not depend on whose it was.
    """
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        value = _decode_nearly(content, str(error))
    if may_repeat(content, _names(value)) and (twice := _repeated(content)):
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
