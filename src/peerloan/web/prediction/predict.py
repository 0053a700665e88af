"""From checked loans to the answer that the API and the page give."""

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

# Reasons of an ONNX version take milliseconds a loan. Up to this many loans all get theirs;
# a longer list gets them for as many loans as the time allows.
ALWAYS_EXPLAINED = 100
EXPLAIN_SECONDS = 2.0


@dataclass(frozen=True)
class ResponseOptions:
    """What a caller wants in the answer."""

    reasons: bool = True
    contributions: bool = False
    what_if: bool = False

    @property
    def explained(self) -> bool:
        """Whether contributions have to be computed."""
        return self.reasons or self.contributions


@dataclass(slots=True)
class Answer:
    """Loans that were decided on, and what is answered of them. Ids come with the ledger."""

    serving: LoadedModel
    checked: Checked | CheckedLoans
    loan_ids: Sequence[str | None]
    warnings: Sequence[list[LoanWarning]]
    # The warnings as the answer and the ledger hold them.
    sentences: Sequence[list[str]]
    decisions: Sequence[Decision]
    predictions: Sequence[dict[str, Any]]
    # What stands beside the predictions of many loans; None for one loan, which stands alone.
    beside: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """The answer, as it is encoded."""
        if self.beside is None:
            return self.predictions[0]
        return {**self.beside, "predictions": self.predictions}


def answer_one(serving: LoadedModel, checked: Checked, wanted: ResponseOptions) -> Answer:
    """Decide on one loan."""
    bundle = serving.bundle
    # What costs nothing is kept in the ledger, whatever is answered.
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
    """Decide on many loans; where a time limit holds, it is said what it left out."""
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
    """The answer that was given before, from its decisions in the ledger and their version; raises
    LookupError if it can't be made again.
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
    """Count decisions that lasted; a `what_if` is none."""
    metrics.count_decisions(answer.decisions, answer.warnings)


def _in_time(loans: int) -> Iterator[int]:
    """The positions of loans to explain, for as long as the time allows."""
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
    # The id comes when the decision is handed to the ledger; its place is the first.
    answer: dict[str, Any] = {"what_if": True} if wanted.what_if else {"id": None}
    if loan_id is not None:
        answer["loan_id"] = loan_id
    answer["probability"] = decision.probability
    answer["late"] = decision.late
    answer["threshold"] = serving.version.threshold
    answer["band"] = decision.band
    if wanted.reasons:
        answer["reasons"] = decision.reasons  # the encoder knows them
    if wanted.contributions:
        answer |= _shown(serving.bundle, decision)
    answer["model"] = serving.reference
    answer["warnings"] = warnings
    return answer


def _contributions(bundle: Bundle, inputs: InputReader, kept: StoredDecision) -> dict[str, Any]:
    """The contributions of a decision that was kept: they follow from its inputs. Raises
    LookupError if these can't be read.
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
