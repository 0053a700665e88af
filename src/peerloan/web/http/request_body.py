"""Read a request's body and decode it to Python values with unique names."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from flask import request
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge

from peerloan.formatting import show_value
from peerloan.loan import Problem
from peerloan.loan.decoding import may_have_duplicate_names
from peerloan.loan.text import parse_whole
from peerloan.loan.validation import show_name
from peerloan.web.http.body_waits import waits
from peerloan.web.http.json_errors import describe_fault, refuse_binary, unreadable_encoding
from peerloan.web.http.limits import MAX_PROBLEMS
from peerloan.web.http.problems import RequestError, sentence

# Limits for reading the rest of a body that is too large, before the answer: a client that is still
# sending when the connection closes never reads the reason.
_MOST_DROPPED_BYTES = 100_000_000
_MOST_DROPPED_SECONDS = 5.0
# HTTP's deflate has zlib's header and trailer (RFC 9110, 8.4.1.2).
_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


def read_body(environ: Mapping[str, Any], most: int) -> bytes:
    """Read the request's body, at most `most` bytes both before and after decompression.

    Raises RequestError 400, 408, 415 or 503 for faults of the transport, or RequestEntityTooLarge.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    wait = waits.start(environ)
    try:
        # Most bodies have a length and can be read in one call.
        if length.isdigit() and int(length) <= most:
            content: bytes = environ["wsgi.input"].read(int(length))
            if len(content) < int(length):
                raise ClientDisconnected
        else:
            content = request.get_data(cache=False)
    except Exception as error:
        waits.finish(wait)
        raise _translate_error(error) from None
    waits.finish(wait)
    if len(content) > most:
        raise RequestEntityTooLarge
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    return _decompress(content, encoding, most) if encoding and content else content


def _decompress(content: bytes, encoding: str, most: int) -> bytes:
    """Decompress a body to at most `most` bytes.

    Raises RequestError 415 for an unknown encoding, 400 for broken content, or
    RequestEntityTooLarge.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return content
    if kind not in _WINDOWS:
        raise unreadable_encoding(encoding)
    reader = zlib.decompressobj(_WINDOWS[kind])
    try:
        whole = reader.decompress(content, most + 1)
    except zlib.error:
        detail = f"the body can't be read as {kind}, which its Content-Encoding says it is"
        raise RequestError(400, "Broken Body", detail) from None
    if len(whole) > most:
        raise RequestEntityTooLarge
    if not reader.eof or reader.unused_data:
        raise RequestError(400, "Broken Body", f"the body is not one whole piece of {kind}")
    return whole


def read_form() -> Mapping[str, str]:
    """Read the request's form, which must not be compressed. Raises the errors of `read_body`."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise RequestError(
            415,
            "Unsupported Content Encoding",
            f"Content-Encoding: expected none with a form, given {show_value(encoding)}",
            headers={"Accept-Encoding": "identity"},
        )
    wait = waits.start(request.environ)
    try:
        form = request.form
    except Exception as error:
        waits.finish(wait)
        raise _translate_error(error) from None
    waits.finish(wait)
    return form


def _translate_error(error: Exception) -> Exception:
    if isinstance(error, OSError | ClientDisconnected):
        if not isinstance(error.__context__ or error, OSError):
            return RequestError(400, "Broken Body", "the body ended before its length")
        # Without this, Gunicorn would wait for the rest, here and again in its accepting thread.
        with contextlib.suppress(KeyError, OSError):
            request.environ["gunicorn.socket"].shutdown(socket.SHUT_RD)
        return RequestError(408, "Request Timeout", "the body did not arrive in time")
    if isinstance(error, HTTPException):
        return error
    # Each server has its own errors for invalid chunks.
    return RequestError(400, "Broken Body", "the body's chunks can't be read")


def drop_body(environ: Mapping[str, Any]) -> None:
    """Read and discard the rest of a refused body, within limits."""
    until, left = time.monotonic() + _MOST_DROPPED_SECONDS, _MOST_DROPPED_BYTES
    length = environ.get("CONTENT_LENGTH") or ""
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not chunked and not (length.isdigit() and 0 < int(length) <= left):
        return
    wait = waits.start(environ, _MOST_DROPPED_SECONDS)
    with contextlib.suppress(Exception):  # the request is refused already
        while left > 0 and time.monotonic() < until:
            dropped = len(environ["wsgi.input"].read(min(left, 65_536)))
            if not dropped:
                break
            left -= dropped
    with contextlib.suppress(RequestError):
        waits.finish(wait)


def decode(content: bytes, under: str | None = None) -> Any:
    """Decode JSON. Raises RequestError 400 for invalid JSON, 422 for a repeated name.

    Decoders differ on which of two values of a name they take, and a decision must not depend on
    that. `under` is the name of the list of objects in the outer object, if there is one.
    """
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = _decode_nearly(content)
    if may_have_duplicate_names(content, _names(value, under)) and (
        twice := _repeated(content, under)
    ):
        raise RequestError(422, "Repeated Names", sentence(twice), twice)
    return value


def _decode_nearly(content: bytes) -> Any:
    """Decode near-JSON (NaN, 1e400, an unpaired surrogate), so that a check can name the field."""
    try:
        # JSON on a network is UTF-8 (RFC 8259).
        return json.loads(content.decode("utf-8-sig"), parse_int=parse_whole)
    except (ValueError, RecursionError):
        refuse_binary(content)
        detail = f"the body can't be read as JSON: {describe_fault(content)}"
        raise RequestError(400, "Not JSON", detail) from None


def _objects(value: Any, under: str | None) -> Iterator[tuple[int | None, Any]]:
    """Yield a loan or columns, or each element of a list with its index; also of an inner list."""
    if not isinstance(value, list):
        yield None, value
    inner = value.get(under) if isinstance(value, dict) else value
    if isinstance(inner, list):
        yield from enumerate(inner)


def _names(value: Any, under: str | None) -> int:
    return sum(len(each) for _, each in _objects(value, under) if isinstance(each, dict))


def _repeated(content: bytes, under: str | None) -> list[Problem]:
    """List the names that occur more than once in an object, by loan if there is a list."""
    try:
        read = json.loads(
            content.decode("utf-8-sig"), parse_int=parse_whole, object_pairs_hook=_as_written
        )
    except RecursionError:
        return []  # nested too deeply for this decoder, so it has no loan
    problems = (
        Problem(index, show_name(name), "each name once", f"{count:,} values")
        for index, loan in _objects(read, under)
        if isinstance(loan, _Object)
        for name, count in Counter(name for name, _ in loan.pairs).items()
        if count > 1
    )
    return list(itertools.islice(problems, MAX_PROBLEMS))


class _Object(dict[str, Any]):
    """An object with repeated names, with its pairs as they were sent."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _as_written(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A body may have more than a million objects, so names are counted later, only for the few
    # objects in the answer.
    read = dict(pairs)
    return read if len(read) == len(pairs) else _Object(pairs)
