"""Write TOML: keys, values and comments."""

from __future__ import annotations

import json

from peerloan.formatting import CONTROL_CHARACTERS


def array(key: str, texts: list[str]) -> list[str]:
    """The lines of a key whose value is a list of texts."""
    line = f"{key} = [{', '.join(map(quote, texts))}]"
    if len(line) <= 100:
        return [line]
    return [f"{key} = [", *(f"    {quote(text)}," for text in texts), "]"]


def quote(text: str) -> str:
    """Write a text as a TOML string, with its quotation marks."""
    # JSON's escapes are valid in TOML, which also requires DEL to be escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def literal(value: int | float | str | bool) -> str:
    """Write a value as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quote(value)
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else repr(value)


def comment(text: str) -> str:
    """A comment line; control characters are escaped."""
    return "# " + CONTROL_CHARACTERS.sub(lambda match: ascii(match[0])[1:-1], text)


def doubt(text: str) -> str:
    """A `# doubt:` comment."""
    return comment(f"doubt: {text}")
