"""A loan as the ledger keeps it: compact JSON of a bounded size."""

from __future__ import annotations

import re

import msgspec

# Of one loan as it is kept. Releases before kept whatever a request could hold: 5 MB.
MAX_LOAN_BYTES = 64_000
LOAN_EXPECTED = f"at most {MAX_LOAN_BYTES:,} bytes of compact JSON"
_TEXT_OR_SPACE = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\n\r]+', re.DOTALL)


def compact(content: bytes) -> bytes:
    """JSON without the whitespace between its values; each value stays as it is spelled."""
    words = content.split(None, 1)
    if len(words) == 1:  # whitespace stands at the ends alone, if anywhere
        return words[0]
    try:
        return msgspec.json.format(content, indent=-1)
    except msgspec.MsgspecError:  # NaN, or half of a surrogate pair
        return _TEXT_OR_SPACE.sub(rb"\1", content)


def size_in_bytes(text: str) -> int:
    """How many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())
