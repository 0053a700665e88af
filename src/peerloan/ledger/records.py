"""Records: decisions as the ledger stores and returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from peerloan import uuid7
from peerloan.loan import LoanWarning
from peerloan.model import BANDS, Reason
from peerloan.registry import Bundle

# What a decision was requested by: the API, the page, the Open Inference Protocol, or a book.
SOURCES = ("api", "page", "protocol", "book")


class Version(NamedTuple):
    """A model version as the ledger names it: name, digest of its manifest, and threshold."""

    version: str
    digest: str
    threshold: float

    @classmethod
    def of(cls, bundle: Bundle) -> Version:
        """Return the version of a bundle."""
        return cls(bundle.version, bundle.digest, bundle.policy.threshold)


class Record(NamedTuple):
    """A decision to store.

    `id` is a UUID of version 7, which contains the time. `inputs` (the loan), `reasons` and
    `warnings` are compact JSON. `margin` is in log-odds; `band` is the position in BANDS.
    """

    id: bytes
    version: Version
    source: str
    caller: str
    request_id: str
    idempotency_key: str | None
    loan_id: str | None
    inputs: str
    margin: float
    probability: float
    late: bool
    band: int
    reasons: str | None
    warnings: str | None


# The columns of a record's values, in the order in which their digest covers them. A purge erases
# them. The id, the time, the version and the columns of the chain stay.
VALUES = (
    *("source", "caller", "request_id", "idempotency_key", "loan_id", "inputs"),
    *("margin", "probability", "late", "band", "reasons", "warnings"),
)
_FIRST_VALUE = Record._fields.index("source")
# All columns of a row, in the order in which they are written.
COLUMNS = ("id", "time_ms", "chain", "seq", "version", *VALUES, "salt", "digest", "mac")
_encode = msgspec.json.encode
_reasons = msgspec.json.Decoder(list[Reason])
_warnings = msgspec.json.Decoder(list[str])


def sealed_values(record: Record) -> tuple[object, ...]:
    """Return a record's values, in the order of VALUES."""
    return record[_FIRST_VALUE:]


def encode_or_null(value: list[Reason] | list[str] | None) -> str | None:
    """Encode reasons, or the sentences of warnings, as they are stored."""
    return None if value is None else _encode(value).decode()


def warnings_json(warnings: Sequence[LoanWarning]) -> str | None:
    """Encode warnings as they are stored: a list of sentences, None for no warnings."""
    return encode_or_null(list(map(str, warnings)) or None)


class StoredDecision(Record):
    """A decision read from the ledger."""

    __slots__ = ()

    @property
    def time_ms(self) -> int:
        """When it was made (milliseconds since 1970), by its id."""
        return uuid7.milliseconds(self.id)

    def prediction(self) -> dict[str, Any]:
        """Return the prediction as the API's response contains it."""
        answer: dict[str, Any] = {"id": uuid7.text(self.id)}
        if self.loan_id is not None:
            answer["loan_id"] = self.loan_id
        return answer | {
            "probability": self.probability,
            "late": self.late,
            "threshold": self.version.threshold,
            "band": BANDS[self.band],
            "reasons": None if self.reasons is None else _reasons.decode(self.reasons),
            "model": {"version": self.version.version, "digest": self.version.digest},
            "warnings": [] if self.warnings is None else _warnings.decode(self.warnings),
        }
