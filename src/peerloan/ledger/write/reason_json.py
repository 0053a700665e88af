"""Encodes the reasons of many loans as the ledger stores them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec

from peerloan.model import BatchReasons, Reason, ReasonKey
from peerloan.registry import Bundle

# Texts in a cache; each takes about 300 bytes.
_CACHED_TEXTS = 65_536


class ReasonTexts:
    """Encodes the reasons of a version's decisions as JSON, and caches the text of each reason."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._names = bundle.definition.names
        self._cached = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)

    def of_many(self, reasons: BatchReasons) -> list[str]:
        """Return the reasons of each loan, as `records.encode_or_null` encodes them."""
        texts = self.of_keys(reasons.keys)
        return [
            f"[{','.join([texts[place] for place in places if place >= 0])}]"
            for places in reasons.places.tolist()
        ]

    def of_keys(self, keys: Sequence[ReasonKey]) -> list[str]:
        """Return the JSON of each reason."""
        # 0.0 and −0.0 are the same key of the cache, but differ in JSON.
        return [(self._cached if key.value != 0 else self._encode)(key) for key in keys]

    def _encode(self, key: ReasonKey) -> str:
        position, value, contribution = key
        sentence = self._bundle.sentence(position, value)
        reason = Reason(self._names[position], value, contribution, sentence)
        return msgspec.json.encode(reason).decode()
