"""Guess which value of a label means late, by names and counts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

LabelValue = int | float | str | bool

_LATE = frozenset(
    {"late", "bad", "default", "defaults", "defaulted", "defaulter", "delinquent", "delinquency"}
    | {"dlq", "overdue", "pastdue", "arrears", "unpaid", "notpaid", "nonperforming", "npl", "loss"}
    | {"chargeoff", "chargedoff", "writeoff", "writtenoff", "fail", "failed", "failure"}
    | {"bankrupt", "islate", "isbad", "isdefault"}
)
_GOOD = frozenset(
    {"good", "paid", "repaid", "paidback", "paidoff", "fullypaid", "current", "performing"}
    | {"completed", "timely", "ontime", "ok", "okay", "nondefault"}
    | {"isgood", "ispaid", "isrepaid"}
)
_NOT = frozenset({"not", "non", "no", "never", "without", "isnt", "wasnt"})
# Pairs of words that are read as one.
_PAIRS = re.compile(r"\b(charged?|write|written|paid|on|past) (off|time|due)\b")
_TRUE = frozenset({"1", "true", "t", "yes", "y"})
_FALSE = frozenset({"0", "-1", "false", "f", "no", "n"})


class LateValue(NamedTuple):
    """The value that is taken to mean late, the reason, and whether a name decided it."""

    value: LabelValue
    reason: str
    by_name: bool


def late_value(column: str, values: Mapping[LabelValue, int]) -> LateValue:
    """Guess which of a label's two values means late, from the values and their counts.

    First the names of the values decide ("bad", "Fully Paid"). If they are true and false (or 1 and
    0), the name of the column decides ("is_bad", "paid_back"). Otherwise the rarer value is late.
    """
    first, second = values
    pairs = ((first, second), (second, first))
    meanings = {value: _meaning(str(value)) for value in values}
    for value, other in pairs:
        if meanings[value] == "late" and meanings[other] != "late":
            return LateValue(value, "by its name", True)
    for value, other in pairs:
        if meanings[value] == "good" and meanings[other] != "good":
            return LateValue(other, f"since {value} is not, by its name", True)
    truth = [value for value in values if _plain(value) in _TRUE]
    falsehood = [value for value in values if _plain(value) in _FALSE]
    if len(truth) == len(falsehood) == 1:
        meaning = _meaning(column)
        if meaning is not None:
            value = truth[0] if meaning == "late" else falsehood[0]
            return LateValue(value, "by the column's name", True)
    if values[first] == values[second]:
        value = truth[0] if len(truth) == len(falsehood) == 1 else max(values, key=str)
        return LateValue(
            value, "as a guess: no name is clear, and both values are equally frequent", False
        )
    rarer = min(values, key=lambda value: values[value])
    return LateValue(rarer, "because it is the rarer value, and no name is clear", False)


def _plain(value: LabelValue) -> str:
    return str(value).strip().lower().removesuffix(".0")


def _meaning(text: str) -> str | None:
    """Whether a name means "late" or "good"; None for neither or both."""
    words = _words(text)
    meanings = set()
    for i, word in enumerate(words):
        negated = not _NOT.isdisjoint(words[max(0, i - 2) : i])
        if word in _LATE:
            meanings.add("good" if negated else "late")
        elif word in _GOOD:
            meanings.add("late" if negated else "good")
    return meanings.pop() if len(meanings) == 1 else None


def _words(text: str) -> Sequence[str]:
    """Split a name into lower-case words: isBad, is_bad, IS BAD, "Late (31-120 days)"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    plain = " ".join(re.findall(r"[a-z]+", spaced.lower().replace("'", "")))
    return _PAIRS.sub(r"\1\2", plain).split()
