"""Warnings about unusual loans, which are decided on all the same."""

from __future__ import annotations

from typing import Literal

import msgspec

WarningCode = Literal[
    "out_of_range", "unit-suspected", "unseen_level", "unused_field", "sample_model"
]


class LoanWarning(msgspec.Struct, frozen=True, gc=False):
    """One warning. `field` is None if it is about the model version and not about a field.

    `str` gives the sentence for answers and the ledger. `question` is what to ask before the
    decision is used, if the value is implausible, and `suggestion` the value that may be meant.
    """

    field: str | None
    code: WarningCode
    text: str
    question: str | None = None
    suggestion: float | None = None

    def __str__(self) -> str:
        return self.text if self.field is None else f"{self.field}: {self.text}"

    @property
    def is_unusual_value(self) -> bool:
        """Whether the field's value is outside the range or levels seen in training."""
        return self.code in ("out_of_range", "unit-suspected", "unseen_level")
