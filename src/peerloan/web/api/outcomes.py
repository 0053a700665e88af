"""Outcomes over HTTP: callers report what became of loans, many in one request."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from itertools import islice
from typing import Any, get_args

from flask import Blueprint, Response, request

from peerloan.formatting import show_value
from peerloan.ledger.outcomes import OutcomeRecorder, RecordedOutcome, Status
from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.uuid7 import text as id_text
from peerloan.web.auth.authentication import caller_name, only_caller
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http.limits import MAX_BODY_BYTES, MAX_NAMES, MAX_OUTCOMES
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.query_parameters import refuse_parameters
from peerloan.web.http.request_body import decode, read_body
from peerloan.web.http.responses import as_json, require_json
from peerloan.web.services import require_champion, services

blueprint = Blueprint("outcomes", __name__)


@blueprint.post("/v1/outcomes")
@require_scopes("outcomes")
def outcomes() -> Response:
    """Store reported outcomes. If one is invalid, the others are stored all the same."""
    refuse_parameters()
    require_json()
    rows = _parse_rows(read_body(request.environ, MAX_BODY_BYTES))
    definition = require_champion().bundle.definition
    environ = request.environ
    recorder = OutcomeRecorder(
        services().database, definition, caller_name(environ), only_caller(environ)
    )
    results = recorder.record(enumerate(rows))
    counts = Counter(_status(result) for result in results)
    body: dict[str, Any] = {"outcomes": [_describe(result) for result in results]}
    return as_json(body | {name: counts[name] for name in (*get_args(Status), "refused")})


def _parse_rows(content: bytes) -> list[Any]:
    """Parse the list of outcomes from a body; its elements are not checked. Raises RequestError."""
    body = decode(content, list_name="outcomes")
    wrong = []
    if not isinstance(body, dict):
        wrong = [Problem(None, "(body)", 'an object: {"outcomes": […]}', show_value(body))]
    elif not isinstance(body.get("outcomes"), list):
        given = show_value(body["outcomes"]) if "outcomes" in body else "nothing"
        wrong = [Problem(None, "outcomes", "a list", given)]
    else:
        others = (name for name in body if name != "outcomes")
        wrong = [
            Problem(None, show_name(name), "only outcomes", show_value(body[name]))
            for name in islice(others, MAX_NAMES)
        ]
    if wrong:
        raise RequestError(422, "Wrong Values", sentence(wrong), wrong)
    rows: list[Any] = body["outcomes"]
    if len(rows) > MAX_OUTCOMES:
        raise RequestError(
            413,
            "Too Many Outcomes",
            f"expected at most {MAX_OUTCOMES:,} outcomes, given {len(rows):,}; "
            "send them in parts, or report them as a file: peerloan outcomes FILE",
        )
    return rows


def _status(result: RecordedOutcome | list[Problem]) -> str:
    return result.status if isinstance(result, RecordedOutcome) else "refused"


def _describe(result: RecordedOutcome | list[Problem]) -> dict[str, Any]:
    """Describe the stored outcome, or the problems of an invalid one."""
    if isinstance(result, RecordedOutcome):
        stored = {"id": id_text(result.decision_id), "late": result.late, "status": result.status}
        if result.first_counting_day is None:
            return stored
        day = result.first_counting_day
        return stored | {
            "note": f"reported before {day}, the first day on which an outcome of this decision "
            "counts; it is stored, but monitoring and training don't use it; report it again from "
            "that day on"
        }
    # Without the index of the loan: the position in the response identifies the outcome.
    members = (asdict(problem) for problem in result)
    return {"errors": [{k: v for k, v in each.items() if k != "loan"} for each in members]}
