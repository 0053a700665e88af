"""Read a request's body, and decode its JSON to Python values with unique names."""

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

# Most bytes of a refused body to read and discard (see `drop_body`).
_MAX_DROPPED_BYTES = 100_000_000
# HTTP's deflate has zlib's header and trailer (RFC 9110, 8.4.1.2).
_GZIP = 16 + zlib.MAX_WBITS
_WINDOW_BITS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}


def read_body(environ: Mapping[str, Any], max_bytes: int) -> bytes:
    """Read the request's body, at most `max_bytes` both before and after decompression.

    Raises RequestError 400 (broken), 408 (too slow), 415 (unsupported encoding) or 503 (too many
    bodies at once), or RequestEntityTooLarge.
    """
    length = environ.get("CONTENT_LENGTH") or ""
    wait = waits.start(environ)
    try:
        # Most bodies have a length and can be read in one call.
        if length.isdigit() and int(length) <= max_bytes:
            content: bytes = environ["wsgi.input"].read(int(length))
            if len(content) < int(length):
                raise ClientDisconnected
        else:
            content = request.get_data(cache=False)
    except Exception as error:
        waits.finish(wait)
        raise _translate_error(error) from None
    waits.finish(wait)
    if len(content) > max_bytes:
        raise RequestEntityTooLarge
    encoding = environ.get("HTTP_CONTENT_ENCODING")
    return _decompress(content, encoding, max_bytes) if encoding and content else content


def _decompress(content: bytes, encoding: str, max_bytes: int) -> bytes:
    """Decompress a body to at most `max_bytes`.

    Raises RequestError 415 for an unknown encoding, 400 for broken content, or
    RequestEntityTooLarge.
    """
    kind = encoding.strip().lower()
    if kind in ("", "identity"):
        return content
    if kind not in _WINDOW_BITS:
        raise unreadable_encoding(encoding)
    reader = zlib.decompressobj(_WINDOW_BITS[kind])
    try:
        decompressed = reader.decompress(content, max_bytes + 1)
    except zlib.error:
        detail = f"the body can't be decompressed as {kind}, which is its Content-Encoding"
        raise RequestError(400, "Broken Body", detail) from None
    if len(decompressed) > max_bytes:
        raise RequestEntityTooLarge
    if not reader.eof or reader.unused_data:
        raise RequestError(400, "Broken Body", f"the body is not one complete {kind} stream")
    return decompressed


def read_form() -> Mapping[str, str]:
    """Read the request's form, which must not be compressed. Raises the errors of `read_body`."""
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise RequestError(
            415,
            "Unsupported Content Encoding",
            f"Content-Encoding: expected none for a form, given {show_value(encoding)}",
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
    """Return the error response for an error of reading a body."""
    if isinstance(error, OSError | ClientDisconnected):
        if not isinstance(error.__context__ or error, OSError):
            return RequestError(400, "Broken Body", "the body is shorter than its Content-Length")
        # Otherwise Gunicorn would wait for the rest, in this thread and then in its accepting one.
        with contextlib.suppress(KeyError, OSError):
            request.environ["gunicorn.socket"].shutdown(socket.SHUT_RD)
        return RequestError(408, "Request Timeout", "the body did not arrive in time")
    if isinstance(error, HTTPException):
        return error
    # Invalid chunks: each server raises errors of its own classes.
    return RequestError(400, "Broken Body", "the body's chunks can't be read")


def drop_body(environ: Mapping[str, Any]) -> None:
    """Read and discard the rest of a refused body, within limits.

    A client that is still sending when the connection closes never reads the response.
    """
    deadline, left = time.monotonic() + waits.drop_seconds, _MAX_DROPPED_BYTES
    length = environ.get("CONTENT_LENGTH") or ""
    chunked = "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower()
    if not chunked and not (length.isdigit() and 0 < int(length) <= left):
        return
    wait = waits.start(environ, waits.drop_seconds)
    with contextlib.suppress(Exception):  # the request is refused already
        while left > 0 and time.monotonic() < deadline:
            dropped = len(environ["wsgi.input"].read(min(left, 65_536)))
            if not dropped:
                break
            left -= dropped
    with contextlib.suppress(RequestError):
        waits.finish(wait)


def decode(content: bytes, list_name: str | None = None) -> Any:
    """Decode JSON. Raises RequestError 400 for invalid JSON, 422 for a repeated name.

    JSON decoders differ on which value of a repeated name they take, and a decision must not depend
    on that. `list_name` is the name of the list if the body is an object with a list of objects.
    """
    try:
        value = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        value = _decode_leniently(content)
    if may_have_duplicate_names(content, _count_names(value, list_name)) and (
        repeated := _repeated_names(content, list_name)
    ):
        raise RequestError(422, "Repeated Names", sentence(repeated), repeated)
    return value


def _decode_leniently(content: bytes) -> Any:
    """Decode JSON with values that strict JSON does not have: NaN, 1e400, an unpaired surrogate.

    The check of the loan then refuses the value and names its field.
    """
    try:
        # JSON that is sent between systems is UTF-8 (RFC 8259, 8.1).
        return json.loads(content.decode("utf-8-sig"), parse_int=parse_whole)
    except (ValueError, RecursionError):
        refuse_binary(content)
        detail = f"the body can't be read as JSON: {describe_fault(content)}"
        raise RequestError(400, "Not JSON", detail) from None


def _objects(value: Any, list_name: str | None) -> Iterator[tuple[int | None, Any]]:
    """Yield the objects of a body, with their index in its list; None for the body itself."""
    if not isinstance(value, list):
        yield None, value
    inner = value.get(list_name) if isinstance(value, dict) else value
    if isinstance(inner, list):
        yield from enumerate(inner)


def _count_names(value: Any, list_name: str | None) -> int:
    return sum(len(each) for _, each in _objects(value, list_name) if isinstance(each, dict))


def _repeated_names(content: bytes, list_name: str | None) -> list[Problem]:
    """List the names that occur more than once in an object, as problems of the object."""
    try:
        body = json.loads(
            content.decode("utf-8-sig"), parse_int=parse_whole, object_pairs_hook=_keep_repeated
        )
    except RecursionError:
        return []  # it is nested too deeply for a loan
    problems = (
        Problem(index, show_name(name), "each name once", f"{count:,} values")
        for index, loan in _objects(body, list_name)
        if isinstance(loan, _RepeatingObject)
        for name, count in Counter(name for name, _ in loan.pairs).items()
        if count > 1
    )
    return list(itertools.islice(problems, MAX_PROBLEMS))


class _RepeatingObject(dict[str, Any]):
    """An object with repeated names, and all of its pairs of name and value."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _keep_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A body may have more than a million objects, so names are counted later, and only for the
    # objects that the response names.
    unique = dict(pairs)
    return unique if len(unique) == len(pairs) else _RepeatingObject(pairs)
