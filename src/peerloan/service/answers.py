"""From checked loans to the answer that the API and the page give."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peerloan.loan import Checked, CheckedLoans, Value
from peerloan.model import BANDS, Bundle, Decision, Reason, probabilities
from peerloan.service import metrics
from peerloan.service.champion import Serving

# Reasons of an ONNX version take milliseconds a loan. Up to this many loans all get theirs;
# a longer list gets them for as many loans as the time allows.
ALWAYS_EXPLAINED = 100
EXPLAIN_SECONDS = 2.0
SAMPLE_WARNING = "this model version was trained on the built-in sample: not for real decisions"


@dataclass(frozen=True)
class Wanted:
    """What a caller wants in the answer."""

    reasons: bool = True
    contributions: bool = False
    what_if: bool = False

    @property
    def explained(self) -> bool:
        """Whether contributions have to be computed."""
        return self.reasons or self.contributions


def answer_one(serving: Serving, checked: Checked, wanted: Wanted) -> dict[str, Any]:
    """The prediction object of one loan."""
    decision = serving.bundle.decide(checked.values, explain=wanted.explained)
    if not wanted.what_if:
        metrics.count_decisions((decision.band,), (decision.probability,))
        if checked.warnings:
            metrics.count_unusual(serving.bundle.definition.names, checked.warnings)
    return _prediction(serving.bundle, checked.loan_id, checked.warnings, decision, wanted)


def answer_many(serving: Serving, checked: CheckedLoans, wanted: Wanted) -> dict[str, Any]:
    """The prediction objects of many loans, in order, and what the time limit left out."""
    bundle = serving.bundle
    margins, contributions = bundle.score_many(checked.loans)
    answer: dict[str, Any] = {}
    explained: list[tuple[float, ...] | None]
    reasons: list[list[Reason] | None]
    explained, reasons = [None] * len(checked.rows), [None] * len(checked.rows)
    if contributions is not None:
        explained = list(map(tuple, contributions.tolist())) if wanted.contributions else explained
        reasons = bundle.explain_many(checked.rows, contributions) if wanted.reasons else reasons
    elif wanted.explained:
        explained = _explain(bundle, checked.rows, answer)
        reasons = [
            None if own is None else bundle.explain(values, own)
            for values, own in zip(checked.rows, explained, strict=True)
        ]
    shown = probabilities(margins).tolist()
    bands = [BANDS[band] for band in bundle.policy.bands_many(margins).tolist()]
    if not wanted.what_if:
        metrics.count_decisions(bands, shown)
        names = bundle.definition.names
        metrics.count_unusual(names, itertools.chain.from_iterable(checked.warnings.values()))
    late = bundle.policy.late_many(margins).tolist()
    decisions = map(Decision, margins.tolist(), shown, late, bands, explained, reasons)
    none: list[str] = []
    answer["predictions"] = [
        _prediction(bundle, loan_id, checked.warnings.get(i, none), decision, wanted)
        for i, (loan_id, decision) in enumerate(zip(checked.loan_ids, decisions, strict=True))
    ]
    return answer


def _explain(
    bundle: Bundle, rows: Sequence[tuple[Value, ...]], answer: dict[str, Any]
) -> list[tuple[float, ...] | None]:
    """Contributions that cost milliseconds a loan, for as many loans as the time allows."""
    until = time.monotonic() + EXPLAIN_SECONDS
    limited = len(rows) > ALWAYS_EXPLAINED
    explained: list[tuple[float, ...] | None] = [None] * len(rows)
    done = 0
    for i, values in enumerate(rows):
        if limited and time.monotonic() >= until:
            break
        explained[i] = bundle.model.score(values)[1]
        done += 1
    if limited:
        answer["reasons_limit"] = {"seconds": EXPLAIN_SECONDS, "loans_with_reasons": done}
    return explained


def _prediction(
    bundle: Bundle, loan_id: str | None, warnings: list[str], decision: Decision, wanted: Wanted
) -> dict[str, Any]:
    answer: dict[str, Any] = {"what_if": True} if wanted.what_if else {"id": new_id()}
    if loan_id is not None:
        answer["loan_id"] = loan_id
    answer["probability"] = decision.probability
    answer["late"] = decision.late
    answer["threshold"] = bundle.policy.threshold
    answer["band"] = decision.band
    if wanted.reasons:
        answer["reasons"] = decision.reasons  # the encoder knows them
    if wanted.contributions:
        answer["margin"] = decision.margin
        answer["base"] = bundle.base
        answer["contributions"] = (
            None
            if decision.contributions is None
            else dict(zip(bundle.definition.names, decision.contributions, strict=True))
        )
    answer["model"] = {"version": bundle.version, "digest": bundle.digest}
    answer["warnings"] = [*warnings, SAMPLE_WARNING] if bundle.manifest.sample else warnings
    return answer


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 random bits."""
    at = f"{time.time_ns() // 1_000_000:012x}"
    # Unique, and no secret. (The system's source of randomness would let other threads run first;
    # this one begins anew in each process.)
    bits = f"{random.getrandbits(74):019x}"
    variant = "89ab"[int(bits[0], 16) & 3]
    return f"{at[:8]}-{at[8:]}-7{bits[1:4]}-{variant}{bits[4:7]}-{bits[7:19]}"
