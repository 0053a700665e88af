"""Decide on checked loans and make the answer of the API and the page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peerloan.ledger import StoredDecision
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Checked, CheckedLoans, LoanWarning
from peerloan.registry import Bundle, Decision
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.telemetry import metrics

# Reasons of an ONNX version take milliseconds a loan. Up to this many loans all have reasons; in a
# longer list, as many as the time limit allows.
ALWAYS_EXPLAINED = 100
EXPLAIN_SECONDS = 2.0


@dataclass(frozen=True)
class ResponseOptions:
    """Options of the response."""

    reasons: bool = True
    contributions: bool = False
    what_if: bool = False

    @property
    def explained(self) -> bool:
        """Whether contributions must be computed."""
        return self.reasons or self.contributions


@dataclass(slots=True)
class Answer:
    """Decisions on a request's loans, and the response. The ledger's writer adds the ids."""

    serving: LoadedModel
    checked: Checked | CheckedLoans
    loan_ids: Sequence[str | None]
    warnings: Sequence[list[LoanWarning]]
    # The warnings as the answer and the ledger hold them.
    sentences: Sequence[list[str]]
    decisions: Sequence[Decision]
    predictions: Sequence[dict[str, Any]]
    # Members beside the predictions of many loans; None for one loan, which has no list.
    beside: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """Return the response body before encoding."""
        if self.beside is None:
            return self.predictions[0]
        return {**self.beside, "predictions": self.predictions}


def answer_one(serving: LoadedModel, checked: Checked, wanted: ResponseOptions) -> Answer:
    """Decide on one loan."""
    bundle = serving.bundle
    # Reasons without extra cost are stored in the ledger, even if they are not in the response.
    decision = bundle.decide(checked.values, explain=wanted.explained or bundle.is_additive)
    warnings = checked.warnings + bundle.warnings
    sentences = list(map(str, warnings))
    prediction = _prediction(serving, checked.loan_id, sentences, decision, wanted)
    return Answer(
        serving,
        checked,
        (checked.loan_id,),
        (warnings,),
        (sentences,),
        (decision,),
        (prediction,),
    )


def answer_many(serving: LoadedModel, checked: CheckedLoans, wanted: ResponseOptions) -> Answer:
    """Decide on many loans; the answer states how many have reasons if there is a time limit."""
    bundle = serving.bundle
    size = checked.loans.size
    decided = bundle.decide_many(
        checked.loans, explain=_in_time(size) if wanted.explained else bundle.is_additive
    )
    beside = {}
    if wanted.explained and not bundle.is_additive and size > ALWAYS_EXPLAINED:
        beside = _limit(int(decided.explained.sum()))
    decisions = bundle.unpack(decided, checked.values_by_field, contributions=wanted.contributions)
    # Most loans have the version's warnings alone, and share a list.
    warnings = [bundle.warnings] * size
    sentences = [list(map(str, bundle.warnings))] * size
    for i, of_loan in checked.warnings.items():
        warnings[i] = of_loan + bundle.warnings
        sentences[i] = list(map(str, warnings[i]))
    predictions = [
        _prediction(serving, loan_id, own, decision, wanted)
        for loan_id, own, decision in zip(checked.loan_ids, sentences, decisions, strict=True)
    ]
    return Answer(
        serving,
        checked,
        checked.loan_ids,
        warnings,
        sentences,
        decisions,
        predictions,
        beside,
    )


def rebuild_answer(
    bundle: Bundle, kept: Sequence[StoredDecision], wanted: ResponseOptions, many: bool
) -> dict[str, Any]:
    """Rebuild an earlier answer from its stored decisions and their version.

    Raises LookupError if that is not possible.
    """
    predictions = []
    inputs = InputReader(bundle.definition)
    for each in kept:
        prediction = each.prediction()
        warnings, model = prediction.pop("warnings"), prediction.pop("model")
        if not wanted.reasons:
            del prediction["reasons"]
        if wanted.contributions:
            prediction |= _contributions(bundle, inputs, each)
        predictions.append(prediction | {"model": model, "warnings": warnings})
    if not many:
        return predictions[0]
    beside: dict[str, Any] = {}
    if wanted.explained and not bundle.is_additive and len(kept) > ALWAYS_EXPLAINED:
        beside = _limit(sum(each.reasons is not None for each in kept))
    return {**beside, "predictions": predictions}


def count(answer: Answer) -> None:
    """Count committed decisions in the metrics; a `what_if` has none."""
    metrics.count_decisions(answer.decisions, answer.warnings)


def _in_time(loans: int) -> Iterator[int]:
    """Yield the positions of loans to explain, until the time limit."""
    until = time.monotonic() + EXPLAIN_SECONDS
    for i in range(loans):
        if loans > ALWAYS_EXPLAINED and time.monotonic() >= until:
            return
        yield i


def _limit(done: int) -> dict[str, Any]:
    return {"reasons_limit": {"seconds": EXPLAIN_SECONDS, "loans_with_reasons": done}}


def _prediction(
    serving: LoadedModel,
    loan_id: str | None,
    warnings: list[str],
    decision: Decision,
    wanted: ResponseOptions,
) -> dict[str, Any]:
    # The writer sets the id later; it must be the first member.
    answer: dict[str, Any] = {"what_if": True} if wanted.what_if else {"id": None}
    if loan_id is not None:
        answer["loan_id"] = loan_id
    answer["probability"] = decision.probability
    answer["late"] = decision.late
    answer["threshold"] = serving.version.threshold
    answer["band"] = decision.band
    if wanted.reasons:
        answer["reasons"] = decision.reasons  # the JSON encoder handles them
    if wanted.contributions:
        answer |= _shown(serving.bundle, decision)
    answer["model"] = serving.reference
    answer["warnings"] = warnings
    return answer


def _contributions(bundle: Bundle, inputs: InputReader, kept: StoredDecision) -> dict[str, Any]:
    """Recompute the contributions of a stored decision from its inputs.

    Raises LookupError if the inputs can't be read.
    """
    try:
        checked = inputs.read(kept.inputs)
    except InputUnreadable as error:
        raise LookupError(str(error)) from error
    explain = kept.reasons is not None or bundle.is_additive
    return _shown(bundle, bundle.decide(checked.values, explain=explain))


def _shown(bundle: Bundle, decision: Decision) -> dict[str, Any]:
    names, contributions = bundle.definition.names, decision.contributions
    return {
        "margin": decision.margin,
        "base": bundle.base,
        "contributions": None
        if contributions is None
        else dict(zip(names, contributions, strict=True)),
    }
