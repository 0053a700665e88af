"""Templates for the sentences of reasons; a loan definition may replace them."""

from __future__ import annotations

import msgspec


class ReasonTemplates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Templates of reasons, with placeholders.

    `{usual}` is the training table's median or most frequent level. `{more}` and `{less}` are the
    field's words for a comparison. `level` is used for a category. It is also used for a number or
    an ordered level that is on the safer side of the usual value by the field's direction
    (`riskier`), or no riskier than it by the scorecard: comparing the two would give the borrower
    a wrong reason.

    The texts are true of the model by construction. They say nothing about late rates, which may
    differ if features are correlated.
    """

    higher: str = "{label}: {value}, {more} than the usual {usual}."
    lower: str = "{label}: {value}, {less} than the usual {usual}."
    equal: str = "{label}: {value}, as usual; the model estimates more risk there than on average."
    level: str = (
        "{label}: {value}; the model estimates more risk there than on average (usual: {usual})."
    )
    unseen: str = "{label}: {value}, which the model has not seen before."
    missing: str = "{label}: not given."
