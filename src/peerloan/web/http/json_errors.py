"""Describe why a body is not JSON: where the fault is, and what to send instead."""

from __future__ import annotations

import json
import re

from peerloan.formatting import show_value
from peerloan.web.http.problems import RequestError

# First bytes of compressed bodies and other files. Bodies in gzip and deflate are accepted with the
# header Content-Encoding.
_SIGNATURES = (
    (b"\x1f\x8b", "gzip"),
    (b"\x78\x01", "deflate"),
    (b"\x78\x5e", "deflate"),
    (b"\x78\x9c", "deflate"),
    (b"\x78\xda", "deflate"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ", "xz"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PAR1", "Parquet"),
    (b"ARROW1", "Arrow"),
    (b"\xff\xff\xff\xff", "Arrow"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x80\x05\x95", "a Python pickle"),
)
READABLE_ENCODINGS = ("gzip", "deflate")
_ACCEPTED = {"Accept-Encoding": ", ".join(READABLE_ENCODINGS)}
_FORM = re.compile(rb"[\w.%+-]+=")
_WORD = re.compile(r"[A-Za-z_]+")
_LITERALS = {"none": "null", "undefined": "null", "nil": "null", "na": "null"}
_LITERALS |= {"true": "true", "false": "false"}
_SHOWN_CHARACTERS = 20


def unreadable_encoding(encoding: str) -> RequestError:
    """Return the error of an unsupported Content-Encoding."""
    return RequestError(
        415,
        "Unsupported Content Encoding",
        f"Content-Encoding: expected gzip, deflate or none, given {show_value(encoding)}",
        headers=_ACCEPTED,
    )


def refuse_binary(content: bytes) -> None:
    """Raise RequestError 415 if the first bytes of a body are those of a compressed or other file.

    Call this only for a body that can't be parsed as JSON.
    """
    kind = next((kind for signature, kind in _SIGNATURES if content.startswith(signature)), None)
    if kind is None:
        return
    if kind in READABLE_ENCODINGS:
        remedy = f"send it with the header Content-Encoding: {kind}, or send uncompressed JSON"
    else:
        remedy = "send JSON, uncompressed or with Content-Encoding: gzip"
    raise RequestError(
        415,
        "Unsupported Content Encoding",
        f"expected JSON, given a body that begins like {kind}; {remedy}",
        headers=_ACCEPTED,
    )


def describe_fault(content: bytes) -> str:
    """Describe why a body can't be parsed as JSON, and what to send instead, in a clause."""
    if not content.strip():
        return "it is empty"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:4]:
        return "it looks like UTF-16 or UTF-32; send it in UTF-8"
    try:
        json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return f"byte {error.start:,} (0x{content[error.start]:02x}) is not UTF-8; send it in UTF-8"
    except json.JSONDecodeError as error:
        if _FORM.match(content):
            return "it is a form (name=value); send an object: {…}"
        return f"line {error.lineno:,}, column {error.colno:,}: {_at_position(error)}"
    except (ValueError, RecursionError):
        pass
    return "it is nested too deep"


def _at_position(error: json.JSONDecodeError) -> str:
    """Describe the fault at the position where the parser stopped."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    if error.msg.startswith(("Unterminated", "Invalid control", "Invalid \\")):
        return error.msg[0].lower() + error.msg[1:]
    if not after:
        return "it ends before it is complete"
    if error.msg == "Extra data":
        return "there is more after its end; send several loans as a list: [{…}, {…}]"
    if after[0] in "]}" and before.endswith(","):
        return f"there is a comma before {after[0]}"
    if after[0] in "'‘’“”":
        return "expected text in double quotes; in Python, json.dumps writes JSON"
    word = _WORD.match(after)
    if word and (literal := _LITERALS.get(word[0].lower())):
        return f"expected {literal}, given {word[0]}; in Python, json.dumps writes JSON"
    expected = error.msg.removeprefix("Expecting ")
    return f"expected {expected}, given {show_value(after[:_SHOWN_CHARACTERS])}"
