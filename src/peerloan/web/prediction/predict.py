"""Decide on checked loans, and build the answer for the API and the decision page."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peerloan.ledger import StoredDecision
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Checked, CheckedLoans, LoanWarning, Understood
from peerloan.registry import Bundle, Decision
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.telemetry import metrics

# Computing the reasons of an ONNX version takes milliseconds for each loan. In a request of up to
# ALWAYS_EXPLAINED loans all get reasons. In a larger one, loans get reasons until EXPLAIN_SECONDS
# have passed.
ALWAYS_EXPLAINED = 100
EXPLAIN_SECONDS = 2.0


@dataclass(frozen=True)
class ResponseOptions:
    """Options of a response.

    `reasons` and `contributions` are whether the response has them. A `what_if` is scored in the
    same way, but no decision is stored or counted. `flips` are the values of single fields that
    would change the decision, only in a `what_if` of one loan. If loans were read in a `lenient`
    way, each prediction has `understood`.
    """

    reasons: bool = True
    contributions: bool = False
    what_if: bool = False
    flips: bool = False
    lenient: bool = False

    @property
    def needs_contributions(self) -> bool:
        """Whether contributions must be computed; reasons are made from them."""
        return self.reasons or self.contributions


@dataclass(slots=True)
class Answer:
    """The decisions on a request's loans, and the response body in parts.

    All sequences have one element for each loan, in the request's order. The predictions get their
    ids while the decisions are queued for the ledger.
    """

    serving: LoadedModel
    checked: Checked | CheckedLoans
    loan_ids: Sequence[str | None]
    warnings: Sequence[list[LoanWarning]]
    # The warnings as texts, for the response and the ledger.
    warning_texts: Sequence[list[str]]
    decisions: Sequence[Decision]
    predictions: Sequence[dict[str, Any]]
    # Further members of the response to a list of loans; None if the response is one prediction.
    list_members: dict[str, Any] | None = None

    def body(self) -> dict[str, Any]:
        """Return the response body, not yet encoded as JSON."""
        if self.list_members is None:
            return self.predictions[0]
        return {**self.list_members, "predictions": self.predictions}


def answer_one(serving: LoadedModel, checked: Checked, options: ResponseOptions) -> Answer:
    """Decide on one loan; the body of the answer is its prediction."""
    bundle = serving.bundle
    # The reasons of an additive version cost nothing, so the ledger gets them in any case.
    decision = bundle.decide(
        checked.values, explain=options.needs_contributions or bundle.is_additive
    )
    warnings = checked.warnings + bundle.warnings
    texts = list(map(str, warnings))
    prediction = _prediction(serving, checked.loan_id, texts, decision, options)
    if options.flips:
        prediction["flips"] = bundle.flips(checked.values)  # msgspec encodes them
    prediction |= _questions_member(checked.warnings)
    return Answer(
        serving,
        checked,
        (checked.loan_id,),
        (warnings,),
        (texts,),
        (decision,),
        (prediction,),
    )


def answer_many(serving: LoadedModel, checked: CheckedLoans, options: ResponseOptions) -> Answer:
    """Decide on a list of loans; the body of the answer has a list of predictions.

    The body also states how many loans have reasons, if the time limit for reasons applies.
    """
    bundle = serving.bundle
    size = checked.loans.size
    decided = bundle.decide_many(
        checked.loans,
        explain=_indices_in_time(size) if options.needs_contributions else bundle.is_additive,
    )
    list_members = {}
    if options.needs_contributions and not bundle.is_additive and size > ALWAYS_EXPLAINED:
        list_members = _reasons_limit(int(decided.explained.sum()))
    decisions = bundle.unpack(decided, checked.values_by_field, contributions=options.contributions)
    # Most loans have only the version's warnings, and share these lists.
    warnings = [bundle.warnings] * size
    texts = [list(map(str, bundle.warnings))] * size
    for i, loan_warnings in checked.warnings.items():
        warnings[i] = loan_warnings + bundle.warnings
        texts[i] = list(map(str, warnings[i]))
    predictions = [
        _prediction(serving, loan_id, loan_texts, decision, options)
        for loan_id, loan_texts, decision in zip(checked.loan_ids, texts, decisions, strict=True)
    ]
    for i, loan_warnings in checked.warnings.items():
        predictions[i] |= _questions_member(loan_warnings)
    return Answer(
        serving,
        checked,
        checked.loan_ids,
        warnings,
        texts,
        decisions,
        predictions,
        list_members,
    )


def rebuild_answer(
    bundle: Bundle, stored: Sequence[StoredDecision], options: ResponseOptions, is_list: bool
) -> dict[str, Any]:
    """Rebuild the body of an earlier response from its stored decisions and their version.

    `is_list` is whether that request had a list of loans. Raises LookupError if the decisions can't
    be read any more.
    """
    predictions = []
    inputs = InputReader(bundle.definition)
    for decision in stored:
        prediction = decision.prediction()
        warnings, model = prediction.pop("warnings"), prediction.pop("model")
        if not options.reasons:
            del prediction["reasons"]
        if options.contributions:
            prediction |= _recompute_contributions(bundle, inputs, decision)
        prediction |= {"model": model, "warnings": warnings}
        # The ledger has only the sentences of warnings. Most loans have only the version's.
        if len(warnings) > len(bundle.warnings):
            prediction |= _recompute_questions(inputs, decision)
        predictions.append(prediction)
    if not is_list:
        return predictions[0]
    list_members: dict[str, Any] = {}
    if options.needs_contributions and not bundle.is_additive and len(stored) > ALWAYS_EXPLAINED:
        list_members = _reasons_limit(sum(each.reasons is not None for each in stored))
    return {**list_members, "predictions": predictions}


def add_understood(
    predictions: Iterable[dict[str, Any]], understood: Iterable[list[Understood]]
) -> None:
    """Add to each prediction how its loan was read."""
    for prediction, readings in zip(predictions, understood, strict=True):
        prediction["understood"] = readings


def count_committed(answer: Answer) -> None:
    """Count an answer's decisions in the metrics. Call it once they are committed."""
    metrics.count_decisions(answer.decisions, answer.warnings)


def _indices_in_time(loans: int) -> Iterator[int]:
    """Yield the indices of the loans to explain, until the time limit."""
    deadline = time.monotonic() + EXPLAIN_SECONDS
    for i in range(loans):
        if loans > ALWAYS_EXPLAINED and time.monotonic() >= deadline:
            return
        yield i


def _reasons_limit(loans_with_reasons: int) -> dict[str, Any]:
    limit = {"seconds": EXPLAIN_SECONDS, "loans_with_reasons": loans_with_reasons}
    return {"reasons_limit": limit}


def _prediction(
    serving: LoadedModel,
    loan_id: str | None,
    warnings: list[str],
    decision: Decision,
    options: ResponseOptions,
) -> dict[str, Any]:
    # The id is set once the decision is queued for the ledger; it must be the first member.
    prediction: dict[str, Any] = {"what_if": True} if options.what_if else {"id": None}
    if loan_id is not None:
        prediction["loan_id"] = loan_id
    prediction["probability"] = decision.probability
    prediction["late"] = decision.late
    prediction["threshold"] = serving.version.threshold
    prediction["band"] = decision.band
    if options.reasons:
        prediction["reasons"] = decision.reasons  # msgspec encodes them
    if options.contributions:
        prediction |= _margin_members(serving.bundle, decision)
    prediction["model"] = serving.reference
    prediction["warnings"] = warnings
    return prediction


def _recompute_contributions(
    bundle: Bundle, inputs: InputReader, stored: StoredDecision
) -> dict[str, Any]:
    """Recompute the contributions of a stored decision from its inputs.

    Raises LookupError if the inputs can't be read.
    """
    try:
        checked = inputs.read(stored.inputs)
    except InputUnreadable as error:
        raise LookupError(str(error)) from error
    explain = stored.reasons is not None or bundle.is_additive
    return _margin_members(bundle, bundle.decide(checked.values, explain=explain))


def _questions_member(warnings: Sequence[LoanWarning]) -> dict[str, Any]:
    """Return the member of a prediction with the questions about implausible values, if any."""
    questions = [
        {
            "code": warning.code,
            "field": warning.field,
            "text": warning.question,
            "suggestion": warning.suggestion,
        }
        for warning in warnings
        if warning.question is not None
    ]
    return {"questions": questions} if questions else {}


def _recompute_questions(inputs: InputReader, stored: StoredDecision) -> dict[str, Any]:
    """Recompute the questions about a stored loan; none if its inputs can't be read."""
    try:
        return _questions_member(inputs.read(stored.inputs).warnings)
    except InputUnreadable:
        return {}


def _margin_members(bundle: Bundle, decision: Decision) -> dict[str, Any]:
    """Return the members of a prediction with contributions, all in log-odds."""
    names, contributions = bundle.definition.names, decision.contributions
    return {
        "margin": decision.margin,
        "base": bundle.base,
        "contributions": None
        if contributions is None
        else dict(zip(names, contributions, strict=True)),
    }
