"""The reasons of many loans as the ledger keeps them: most of each was said of another loan too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import numpy as np

from peerloan.loan import Numbers, Value
from peerloan.model import Bundle, Reason, Reasons

# A reason's text takes about 300 bytes.
_TEXTS_KEPT = 65_536


class ReasonTexts:
    """Makes the reasons of a version's decisions, as JSON."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._names = bundle.definition.names
        self._known = lru_cache(maxsize=_TEXTS_KEPT)(self._text)

    def of_many(self, rows: Sequence[tuple[Value, ...]], contributions: Numbers) -> list[str]:
        """The reasons of loans (n), given their contributions (n, features); each as
        `records.as_json` has them.
        """
        positions = Reasons.positions_many(contributions)
        largest = np.take_along_axis(contributions, np.maximum(positions, 0), axis=1)
        known, text = self._known, self._text
        texts = []
        for values, where, own in zip(rows, positions.tolist(), largest.tolist(), strict=True):
            parts = [
                # To a cache 0.0 and -0.0 are one, and they are written as two.
                known(i, values[i], points) if values[i] != 0 else text(i, values[i], points)
                for i, points in zip(where, own, strict=True)
                if i >= 0
            ]
            texts.append(f"[{','.join(parts)}]")
        return texts

    def _text(self, position: int, value: Value, points: float) -> str:
        sentence = self._bundle.sentence(position, value)
        reason = Reason(self._names[position], value, points, sentence)
        return msgspec.json.encode(reason).decode()
