"""Parse label values (late or on time) from tables and requests."""

from __future__ import annotations

from peerloan.formatting import show_value
from peerloan.loan.definition import Label
from peerloan.loan.spelling import plain, text_of
from peerloan.loan.text import MAX_TEXT, MISSING_NUMBERS, parse_number, stands_for_missing

LabelValue = int | float | str | bool
# The texts of booleans, as 0 and 1.
_BITS = {"false": "0", "true": "1"}


def read_label(value: LabelValue, label: Label) -> bool | None:
    """Parse a label value: True for late, False for on time, None for neither.

    The value may have another type than in the definition, or be text: 1, 1.0, `1` and `1.0` are
    equal. If the label's two values are booleans or 0 and 1, true and `True` are equal to 1 too.
    """
    if equals_label(value, label.late):
        return True
    if equals_label(value, label.on_time):
        return False
    bits = {_bit(label.late): True, _bit(label.on_time): False}
    return bits.get(_bit(value)) if bits.keys() == {"0", "1"} else None


def equals_label(value: LabelValue, meaning: LabelValue) -> bool:
    """Whether a value equals a label's value, in any type and spelling."""
    text, expected = label_text(value), label_text(meaning)
    if text == expected or isinstance(meaning, str):
        return text == expected
    if isinstance(meaning, bool):
        return _bit(value) == _bit(meaning)
    try:
        return parse_number(text) == meaning
    except ValueError:
        return False


def is_unknown(text: str | None, label: Label) -> bool:
    """Whether a cell means that the outcome is not known yet.

    That is an empty cell, or a spelling of a missing value (NA, NULL, …) that is not one of the
    label's two values.
    """
    if not text:
        return text is not None
    missing = stands_for_missing(text) or text.strip().lower() in MISSING_NUMBERS
    return missing and read_label(text, label) is None


def expected_label(label: Label) -> str:
    """Describe valid labels: the `expected` of an error."""
    # Never cut: a user must be able to copy the value.
    late, on_time = (show_value(value, limit=4 * MAX_TEXT) for value in (label.late, label.on_time))
    return f"{late} (late) or {on_time} (on time)"


def label_text(value: LabelValue) -> str:
    """The text of a label value in a table, in plain spelling: `1` for 1.0, `true` for True."""
    return plain(value if isinstance(value, str) else text_of(value))


def _bit(value: LabelValue) -> str:
    """The text of a value; 0 or 1 for a boolean."""
    text = label_text(value)
    return _BITS.get(text.casefold(), text)
