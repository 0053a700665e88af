"""Lines of TOML."""

from __future__ import annotations

import json
import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def array(key: str, texts: list[str]) -> list[str]:
    """The lines of a key with a list of texts."""
    line = f"{key} = [{', '.join(map(quote, texts))}]"
    if len(line) <= 100:
        return [line]
    return [f"{key} = [", *(f"    {quote(text)}," for text in texts), "]"]


def quote(text: str) -> str:
    """A text in quotes."""
    # JSON's escapes are TOML's, which wants one more.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def literal(value: int | float | str | bool) -> str:
    """A value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quote(value)
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def comment(text: str) -> str:
    """A comment; characters that a terminal would obey are escaped."""
    return "# " + _UNSAFE.sub(lambda found: ascii(found[0])[1:-1], text)


def doubt(text: str) -> str:
    """A comment that says what is doubted."""
    return comment(f"doubt: {text}")
