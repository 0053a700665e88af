"""Encodes the reasons of many loans as the ledger stores them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from peerloan.model import Cause, Reason, Said
from peerloan.registry import Bundle

# A reason's text takes about 300 bytes.
_TEXTS_KEPT = 65_536


class ReasonTexts:
    """Makes the reasons of a version's decisions as JSON, and caches their texts."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._names = bundle.definition.names
        self._cached_text = lru_cache(maxsize=_TEXTS_KEPT)(self._text)

    def of_many(self, said: Said) -> list[str]:
        """Return the reasons of each loan, encoded as by `records.as_json`."""
        texts = self.each(said.causes)
        return [
            f"[{','.join([texts[place] for place in places if place >= 0])}]"
            for places in said.places.tolist()
        ]

    def each(self, causes: Sequence[Cause]) -> list[str]:
        """Return the JSON of each reason."""
        # Not cached for 0: 0.0 and -0.0 are one cache key, but are written differently.
        return [(self._cached_text if cause.value != 0 else self._text)(cause) for cause in causes]

    def _text(self, cause: Cause) -> str:
        position, value, points = cause
        sentence = self._bundle.sentence(position, value)
        reason = Reason(self._names[position], value, points, sentence)
        return msgspec.json.encode(reason).decode()
