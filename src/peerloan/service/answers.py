"""From checked loans to the answer that the API and the page give."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peerloan.loan import Checked, Loans
from peerloan.model import BANDS, Bundle, Decision, probabilities
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
    return _prediction(serving.bundle, checked, decision, wanted)


def answer_many(serving: Serving, checked: Sequence[Checked], wanted: Wanted) -> dict[str, Any]:
    """The prediction objects of many loans, in order, and what the time limit left out."""
    bundle = serving.bundle
    loans = Loans.of(bundle.definition, [each.values for each in checked])
    margins, contributions = bundle.score_many(loans)
    shown = probabilities(margins).tolist()
    late = bundle.policy.late_many(margins).tolist()
    bands = bundle.policy.bands_many(margins).tolist()
    costly = wanted.explained and contributions is None
    until = time.monotonic() + EXPLAIN_SECONDS
    limited = costly and len(checked) > ALWAYS_EXPLAINED
    explained = 0
    predictions = []
    for i, (each, margin) in enumerate(zip(checked, margins.tolist(), strict=True)):
        own: tuple[float, ...] | None = None
        if contributions is not None:
            own = tuple(contributions[i].tolist())
        elif costly and (not limited or time.monotonic() < until):
            own = bundle.model.score(each.values)[1]
            explained += 1
        reasons = bundle.explain(each.values, own) if own is not None else None
        decision = Decision(margin, shown[i], late[i], BANDS[bands[i]], own, reasons)
        predictions.append(_prediction(bundle, each, decision, wanted))
    answer: dict[str, Any] = {"predictions": predictions}
    if limited:
        answer["reasons_limit"] = {"seconds": EXPLAIN_SECONDS, "loans_with_reasons": explained}
    return answer


def _prediction(
    bundle: Bundle, checked: Checked, decision: Decision, wanted: Wanted
) -> dict[str, Any]:
    answer: dict[str, Any] = {"what_if": True} if wanted.what_if else {"id": new_id()}
    if checked.loan_id is not None:
        answer["loan_id"] = checked.loan_id
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
    sample = [SAMPLE_WARNING] if bundle.manifest.sample else []
    answer["warnings"] = [*checked.warnings, *sample]
    return answer


def new_id() -> str:
    """A UUID of version 7 (RFC 9562): milliseconds since 1970, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    bits = (milliseconds << 80) | secrets.randbits(80)
    bits = bits & ~(0xF << 76) | (7 << 76)
    bits = bits & ~(0x3 << 62) | (2 << 62)
    return str(uuid.UUID(int=bits))
