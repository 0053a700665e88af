"""What is unusual about a loan that is decided on nevertheless."""

from __future__ import annotations

from typing import Literal

import msgspec

WarningCode = Literal["out_of_range", "unseen_level", "unused_field", "sample_model"]


class LoanWarning(msgspec.Struct, frozen=True, gc=False):
    """One warning. `field` is None if it is about the model version and not about a field.

    `str` gives the sentence that answers and the ledger hold.
    """

    field: str | None
    code: WarningCode
    text: str

    def __str__(self) -> str:
        return self.text if self.field is None else f"{self.field}: {self.text}"

    @property
    def is_unusual_value(self) -> bool:
        """Whether the field's value is outside of what training saw."""
        return self.code in ("out_of_range", "unseen_level")
