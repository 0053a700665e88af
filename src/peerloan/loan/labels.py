"""What became of a loan, as a table or a request says it."""

from __future__ import annotations

from peerloan.loan.definition import Label
from peerloan.loan.text import MISSING_NUMBERS, parse_number


def stands_for(value: str | int | float | bool, meaning: int | float | str | bool) -> bool:
    """Whether a value is that of a label: of the same type, or the text of it in CSV."""
    text = _text(value)
    if isinstance(meaning, str):
        return text == meaning
    if isinstance(meaning, bool) and text.casefold() in ("true", "false"):
        return (text.casefold() == "true") == meaning
    if isinstance(value, bool):
        return value == meaning
    try:
        return parse_number(text) == meaning
    except ValueError:
        return False


def is_unknown(text: str | None, label: Label) -> bool:
    """Whether a cell says that the outcome is not known yet: empty, or NA where labels are numbers
    or truth values.
    """
    if not text:
        return text is not None
    return not isinstance(label.late, str) and text.strip().lower() in MISSING_NUMBERS


def expected_label(label: Label) -> str:
    """What a label must be, in words."""
    return f"{_show(label.late)} (late) or {_show(label.on_time)} (on time)"


def _text(value: str | int | float | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


def _show(meaning: int | float | str | bool) -> str:
    return str(meaning).lower() if isinstance(meaning, bool) else repr(meaning)
