"""Outcomes of loans, reported by callers; each gets its own result."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from itertools import islice
from typing import Any, get_args

from flask import Blueprint, Response, request

from peerloan.database import LedgerUnavailable
from peerloan.formatting import show_value
from peerloan.ledger.outcomes import OutcomeRecorder, RecordedOutcome, Status
from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.uuid7 import text as id_text
from peerloan.web.auth.authentication import caller_name, only_caller
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http import problems
from peerloan.web.http.limits import MAX_BODY_BYTES, MAX_NAMES, MAX_OUTCOMES
from peerloan.web.http.problems import RequestError
from peerloan.web.http.query_parameters import refuse_parameters
from peerloan.web.http.request_body import decode, read_body
from peerloan.web.http.responses import as_json, require_json
from peerloan.web.services import require_champion, services

blueprint = Blueprint("outcomes", __name__)
log = logging.getLogger(__name__)


@blueprint.errorhandler(LedgerUnavailable)
def fault(error: LedgerUnavailable) -> Response:
    """Answer 503. The database's message goes to the log only."""
    log.error("outcomes can't be kept: %s", error)
    return problems.answer(
        problems.ledger_unavailable(
            "The outcomes can't be kept now, and none of them was; try again in a moment."
        )
    )


@blueprint.post("/v1/outcomes")
@require_scopes("outcomes")
def outcomes() -> Response:
    """Store outcomes. An invalid one does not prevent the others from being stored."""
    refuse_parameters()
    require_json()
    rows = _rows(read_body(request.environ, MAX_BODY_BYTES))
    definition = require_champion().bundle.definition
    environ = request.environ
    recorder = OutcomeRecorder(
        services().database, definition, caller_name(environ), only_caller(environ)
    )
    answers = recorder.record(enumerate(rows))
    counts = Counter(_status(each) for each in answers)
    body: dict[str, Any] = {"outcomes": [_answer(each) for each in answers]}
    return as_json(body | {name: counts[name] for name in (*get_args(Status), "refused")})


def _rows(content: bytes) -> list[Any]:
    """Parse the outcomes of a body. Raises RequestError."""
    body = decode(content, under="outcomes")
    wrong = []
    if not isinstance(body, dict):
        wrong = [Problem(None, "(body)", 'an object: {"outcomes": […]}', show_value(body))]
    elif not isinstance(body.get("outcomes"), list):
        given = show_value(body["outcomes"]) if "outcomes" in body else "nothing"
        wrong = [Problem(None, "outcomes", "a list", given)]
    else:
        others = (name for name in body if name != "outcomes")
        wrong = [
            Problem(None, show_name(name), "nothing but outcomes", show_value(body[name]))
            for name in islice(others, MAX_NAMES)
        ]
    if wrong:
        raise RequestError(422, "Wrong Values", problems.sentence(wrong), wrong)
    rows: list[Any] = body["outcomes"]
    if len(rows) > MAX_OUTCOMES:
        raise RequestError(
            413,
            "Too Many Outcomes",
            f"expected at most {MAX_OUTCOMES:,} outcomes, given {len(rows):,}; "
            "send them in parts, or tell them as a file: peerloan outcomes FILE",
        )
    return rows


def _status(answer: RecordedOutcome | list[Problem]) -> str:
    return answer.status if isinstance(answer, RecordedOutcome) else "refused"


def _answer(answer: RecordedOutcome | list[Problem]) -> dict[str, Any]:
    if isinstance(answer, RecordedOutcome):
        kept = {"id": id_text(answer.decision_id), "late": answer.late, "status": answer.status}
        if answer.first_counting_day is None:
            return kept
        day = answer.first_counting_day
        return kept | {
            "note": f"told before {day}, the first day on which an outcome of it counts: kept, but "
            "no figure, rule or version uses it; tell it again from that day on"
        }
    # The position in the list identifies the outcome.
    members = (asdict(problem) for problem in answer)
    return {"errors": [{k: v for k, v in each.items() if k != "loan"} for each in members]}
