"""A loan as the ledger stores it: compact JSON of bounded size."""

from __future__ import annotations

import re

import msgspec

# Most bytes of one stored loan. Older releases stored up to 5 MB, the limit of a request.
MAX_LOAN_BYTES = 64_000
LOAN_EXPECTED = f"at most {MAX_LOAN_BYTES:,} bytes of compact JSON"
_TEXT_OR_SPACE = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\n\r]+', re.DOTALL)


def compact(content: bytes) -> bytes:
    """Remove the whitespace between JSON values; each value stays as it is spelled."""
    parts = content.split(None, 1)
    if len(parts) == 1:  # no whitespace, except at the ends
        return parts[0]
    try:
        return msgspec.json.format(content, indent=-1)
    except msgspec.MsgspecError:  # NaN, or a lone surrogate
        return _TEXT_OR_SPACE.sub(rb"\1", content)


def size_in_bytes(text: str) -> int:
    """Return the size of a text in UTF-8, in bytes."""
    return len(text) if text.isascii() else len(text.encode())
