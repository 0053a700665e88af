"""Read a number as people write it: `12,000`, `$65,000`, `13.06%`, `0,4`, `1.234,5`."""

from __future__ import annotations

import math
import re

from peerloan.loan.definition import Field
from peerloan.loan.text import MAX_TEXT
from peerloan.loan.validation import WrongValue

_SPACES = " \u00a0\u2009\u202f"
# Not ¢: 50 ¢ is 0.5.
_CURRENCY = "$£-¥฿\u20a0-\u20c0"
_PARTS = re.compile(
    rf"(?P<sign>[+\-−]?)[{_SPACES}]*(?P<before>[{_CURRENCY}]?)[{_SPACES}]*"
    rf"(?P<sign_after>[+\-−]?)(?P<digits>[0-9.,].*?)[{_SPACES}]*(?P<after>[{_CURRENCY}%]?)"
)
_PLAIN = re.compile(r"(?P<mantissa>[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]+))?")
# Groups of three digits with one separator, and a decimal point or comma other than it.
_GROUPED = re.compile(
    rf"(?P<groups>[1-9][0-9]{{0,2}}(?P<separator>[{_SPACES}'’_.,])[0-9]{{3}}"
    r"(?:(?P=separator)[0-9]{3})*)(?:(?!(?P=separator))[.,](?P<fraction>[0-9]+))?"
)
_DECIMAL_COMMA = re.compile(r"(?:0|[1-9][0-9]*)?,[0-9]+")
_UNCLEAR = re.compile(r"[1-9][0-9]{0,2},[0-9]{3}")
_UNCLEAR_POINT = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
_NOT_DIGITS = re.compile(r"[^0-9]")


def read_number(field: Field, text: str) -> float | None:
    """Read the number of a field from a text; None if the text is no number.

    A percent sign divides by 100 if the field is a fraction that is shown as a percentage. A point
    is the decimal point, as in JSON, unless another separator or a second point says that it is
    not. One comma with three digits behind it is unclear; what decides is in `_choose`. Raises
    WrongValue, whose message is what is expected, for an unclear number, such as an amount of money
    with three digits behind the point, or for a sign that does not belong to the field.
    """
    if len(text) > MAX_TEXT or (parts := _PARTS.fullmatch(text.strip())) is None:
        return None
    before, after = parts["before"], parts["after"]
    if (parts["sign"] and parts["sign_after"]) or (before and after not in ("", "%")):
        return None
    numbers = _spelled_numbers(parts["digits"])
    if not numbers:
        return None
    currency = before or after.replace("%", "")
    has_percent = after == "%"
    _refuse_signs(field, currency, has_percent)
    if currency and _UNCLEAR_POINT.fullmatch(parts["digits"]):
        thousands, decimal = parts["digits"].replace(".", ""), f"{float(parts['digits']):g}"
        raise WrongValue(f"a number in which '.' has one meaning: write {thousands} or {decimal}")
    sign = -1 if (parts["sign"] or parts["sign_after"]) in ("-", "−") else 1
    shift = -2 if has_percent and field.percent else 0
    values = [sign * float(f"{mantissa}e{exponent + shift}") for mantissa, exponent in numbers]
    if not all(map(math.isfinite, values)):
        return None
    return values[0] if len(values) == 1 else _choose(field, values, numbers, bool(currency))


def _spelled_numbers(digits: str) -> list[tuple[str, int]]:
    """List the numbers that digits with separators can be, as (mantissa, exponent).

    There are none or one; or two, if a comma can separate thousands or be a decimal comma.
    """
    if plain := _PLAIN.fullmatch(digits):
        return [(plain["mantissa"], int(plain["exponent"] or 0))]
    spelled = []
    if grouped := _GROUPED.fullmatch(digits):
        whole = _NOT_DIGITS.sub("", grouped["groups"])
        spelled.append((f"{whole}.{grouped['fraction'] or 0}", 0))
    if _DECIMAL_COMMA.fullmatch(digits) and (not grouped or _UNCLEAR.fullmatch(digits)):
        spelled.append((digits.replace(",", "."), 0))
    return spelled


def _refuse_signs(field: Field, currency: str, has_percent: bool) -> None:
    """Raise WrongValue for a percent sign or a currency sign that the field can't have."""
    is_percentage = field.percent or "%" in field.unit
    if has_percent and not is_percentage:
        raise WrongValue(f"{field.expected} (without '%': it is not a percentage)")
    if currency and (is_percentage or has_percent):
        raise WrongValue(f"{field.expected} (without {currency!r}: it is a percentage)")


def _choose(
    field: Field, values: list[float], numbers: list[tuple[str, int]], has_currency: bool
) -> float:
    """Choose between thousands and a decimal comma, or raise WrongValue.

    The comma separates thousands in a whole number and beside a currency sign. Otherwise the field
    decides: by the allowed range or else the range seen in training, if it has only one of both.
    """
    if field.kind == "whole" or has_currency:
        return values[0]
    allowed = [value for value in values if field.within(value)]
    if len(allowed) != 1 and (seen := field.seen_range) is not None:
        allowed = [value for value in values if seen[0] <= value <= seen[1]]
    if len(allowed) == 1:
        return allowed[0]
    thousands, decimal = (mantissa for mantissa, _ in numbers)
    spellings = f"{thousands.removesuffix('.0')} or {decimal}"
    raise WrongValue(f"a number in which ',' has one meaning: write {spellings}")
