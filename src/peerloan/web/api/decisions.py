"""Stored decisions: one by its id, or pages of them by loan, time, version and band."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, request

from peerloan.clock import EXPECTED, moment, parse_moment
from peerloan.database import LedgerUnavailable
from peerloan.formatting import show_value
from peerloan.ledger import StoredDecision
from peerloan.ledger.challenger_scores import read_challenger_scores
from peerloan.ledger.outcomes import OutcomeHistory, latest_outcomes
from peerloan.ledger.queries import (
    DecisionFilter,
    decision_page,
    find_decisions,
    known_versions,
    search_limit,
    was_purged,
)
from peerloan.model import BANDS
from peerloan.web.auth.authentication import only_caller
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http import problems
from peerloan.web.http.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from peerloan.web.http.problems import RequestError
from peerloan.web.http.query_parameters import QueryParameters, refuse_parameters
from peerloan.web.http.responses import as_json
from peerloan.web.prediction.input_json import input_json
from peerloan.web.services import services

blueprint = Blueprint("decisions", __name__)
log = logging.getLogger(__name__)
PARAMETERS = ("loan_id", "since", "until", "version", "band", "limit", "cursor")


@blueprint.app_errorhandler(LedgerUnavailable)
def fault(error: LedgerUnavailable) -> Response:
    """Answer 503. The database's message goes to the log only."""
    log.error("the ledger can't be read: %s", error)
    return problems.answer(
        problems.ledger_unavailable("The ledger can't be read now; try again in a moment.")
    )


@blueprint.get("/v1/predictions/<decision>")
@require_scopes("read", "predict")
def decision(decision: str) -> Response:
    """Return one decision with its inputs, caller, challenger score and outcomes."""
    refuse_parameters()
    wanted = _id(decision)
    caller = only_caller(request.environ)
    kept = find_decisions(services().database, [wanted], caller) if wanted else {}
    if wanted is None or wanted not in kept:
        if wanted is not None and was_purged(services().database, wanted, caller):
            raise RequestError(410, "Purged", f"the decision {decision} was made, and then purged")
        raise RequestError(404, "No Such Decision", f"there is no decision {show_value(decision)}")
    return as_json(_described(list(kept.values()))[0])


@blueprint.get("/v1/predictions")
@require_scopes("read", "predict")
def decisions() -> Response:
    """Return a page of decisions, newest first; `next` is the cursor of the following page.

    A caller who may read only its own decisions may get a page that is not full, because each page
    searches a limited number of the newest decisions.
    """
    wanted, limit, before = _parse_filter()
    down_to = search_limit(services().database, wanted, before)
    kept, more = decision_page(services().database, wanted, limit, before, down_to)
    last = kept[-1].id if more else down_to
    following = None if last is None else base64.urlsafe_b64encode(last).decode().rstrip("=")
    return as_json({"predictions": _described(kept), "next": following})


def _described(kept: Sequence[StoredDecision]) -> list[dict[str, Any]]:
    with services().database.reading() as connection:
        known = known_versions(connection)
        challenges = read_challenger_scores(connection, [each.id for each in kept])
        outcomes = latest_outcomes(connection, [each.id for each in kept])
    described = []
    for each in kept:
        challenger = None
        if each.id in challenges:
            score = challenges[each.id]
            version = known[score.version].version
            challenger = {"version": version, "probability": score.probability}
        described.append(
            {
                **each.prediction(),
                "time": moment(each.time_ms),
                "margin": each.margin,
                "inputs": input_json(each.inputs),
                "source": each.source,
                "caller": each.caller,
                "request_id": each.request_id,
                "idempotency_key": each.idempotency_key,
                "challenger": challenger,
                "outcomes": _outcomes(outcomes.get(each.id)),
            }
        )
    return described


def _outcomes(known: OutcomeHistory | None) -> list[dict[str, Any]]:
    """List the outcomes of a loan: the valid one first, then earlier ones."""
    told = [] if known is None else [known.now, *reversed(known.before)]
    return [
        {
            "late": each.late,
            "date": None if each.observed is None else str(each.observed),
            "recorded": moment(each.recorded_ms),
            "caller": each.caller,
        }
        for each in told
    ]


def _id(text: str) -> bytes | None:
    try:
        return UUID(text).bytes if len(text) == 36 else None
    except ValueError:
        return None


def _parse_filter() -> tuple[DecisionFilter, int, bytes | None]:
    """Parse the filter of a listing. Raises RequestError that names each wrong parameter."""
    asked = QueryParameters(PARAMETERS)
    loan_id, version = asked.text("loan_id"), asked.text("version")
    limit = asked.limit(DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    band = asked.choice("band", BANDS)
    times: dict[str, int | None] = {}
    for name in ("since", "until"):
        text = asked.value(name)
        times[name] = None if text is None else _milliseconds(text)
        if text is not None and times[name] is None:
            asked.refuse(name, EXPECTED)
    before = None
    if (cursor := asked.value("cursor")) is not None:
        before = _cursor(cursor)
        if before is None:
            asked.refuse("cursor", "the `next` of the page before")
    asked.check()
    caller = only_caller(request.environ)
    return (
        DecisionFilter(loan_id, times["since"], times["until"], version, band, caller),
        limit,
        before,
    )


def _milliseconds(text: str) -> int | None:
    try:
        return max(0, parse_moment(text))
    except (ValueError, OverflowError):
        return None


def _cursor(text: str) -> bytes | None:
    try:
        found = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except ValueError:
        return None
    return found if len(found) == 16 else None
