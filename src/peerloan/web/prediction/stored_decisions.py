"""Stored decisions for views: parse the filter and the cursor of a page, and describe decisions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from peerloan.clock import EXPECTED, moment, parse_moment
from peerloan.database import Database
from peerloan.formatting import show_value
from peerloan.ledger import StoredDecision
from peerloan.ledger.challenger_scores import read_challenger_scores
from peerloan.ledger.outcomes import OutcomeHistory, latest_outcomes
from peerloan.ledger.queries import (
    DecisionFilter,
    decision_page,
    find_decisions,
    search_limit,
    versions_by_number,
    was_purged,
)
from peerloan.model import BANDS
from peerloan.web.http.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from peerloan.web.http.problems import RequestError
from peerloan.web.http.query_parameters import QueryParameters
from peerloan.web.prediction.input_json import input_json

PARAMETERS = ("loan_id", "since", "until", "version", "band", "limit", "cursor")


@dataclass(frozen=True)
class DecisionPage:
    """A page of decisions as JSON-like objects, newest first; `next` is the following cursor."""

    decisions: list[dict[str, Any]]
    next: str | None


def read_page(database: Database, caller: str | None) -> DecisionPage:
    """Read the page that the request's query parameters select.

    With `caller`, only decisions made for it; such pages may not be full, because each searches a
    limited number of decisions. Raises RequestError that names each wrong parameter, or
    LedgerUnavailable.
    """
    selection, limit, before = _parse_filter(caller)
    down_to = search_limit(database, selection, before)
    page, has_more = decision_page(database, selection, limit, before, down_to)
    last = page[-1].id if has_more else down_to
    cursor = None if last is None else base64.urlsafe_b64encode(last).decode().rstrip("=")
    return DecisionPage(_describe(database, page), cursor)


def read_decision(database: Database, text: str, caller: str | None) -> dict[str, Any]:
    """Read one decision by the text of its id.

    Raises RequestError 404 if there is none, 410 if it was purged; or LedgerUnavailable.
    """
    decision_id = parse_decision_id(text)
    stored = find_decisions(database, [decision_id], caller) if decision_id else {}
    if decision_id is None or decision_id not in stored:
        if decision_id is not None and was_purged(database, decision_id, caller):
            raise RequestError(410, "Purged", f"the decision {text} was purged from the ledger")
        raise RequestError(404, "No Such Decision", f"there is no decision {show_value(text)}")
    return _describe(database, list(stored.values()))[0]


def _describe(database: Database, decisions: Sequence[StoredDecision]) -> list[dict[str, Any]]:
    """Return decisions as JSON-like objects, with their challenger scores and outcomes."""
    ids = [decision.id for decision in decisions]
    with database.reading() as connection:
        versions = versions_by_number(connection)
        scores = read_challenger_scores(connection, ids)
        outcomes = latest_outcomes(connection, ids)
    described = []
    for each in decisions:
        challenger = None
        if each.id in scores:
            score = scores[each.id]
            version = versions[score.version].version
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


def _outcomes(history: OutcomeHistory | None) -> list[dict[str, Any]]:
    """List the outcomes that were reported for a decision, the current one first."""
    outcomes = [] if history is None else [history.current, *reversed(history.earlier)]
    return [
        {
            "late": each.late,
            "date": None if each.observed is None else str(each.observed),
            "recorded": moment(each.recorded_ms),
            "caller": each.caller,
        }
        for each in outcomes
    ]


def parse_decision_id(text: str) -> bytes | None:
    """Parse the text of a decision's id; None if it is not one."""
    try:
        return UUID(text).bytes if len(text) == 36 else None
    except ValueError:
        return None


def _parse_filter(caller: str | None) -> tuple[DecisionFilter, int, bytes | None]:
    """Parse the filter, the page size and the cursor. Raises RequestError.

    The error names each wrong parameter.
    """
    parameters = QueryParameters(PARAMETERS)
    loan_id, version = parameters.text("loan_id"), parameters.text("version")
    limit = parameters.limit(DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    band = parameters.choice("band", BANDS)
    times: dict[str, int | None] = {}
    for name in ("since", "until"):
        text = parameters.value(name)
        times[name] = None if text is None else _parse_milliseconds(text)
        if text is not None and times[name] is None:
            parameters.refuse(name, EXPECTED)
    before = None
    if (cursor := parameters.value("cursor")) is not None:
        before = _parse_cursor(cursor)
        if before is None:
            parameters.refuse("cursor", "the value of `next` in the page before")
    parameters.check()
    return (
        DecisionFilter(loan_id, times["since"], times["until"], version, band, caller),
        limit,
        before,
    )


def _parse_milliseconds(text: str) -> int | None:
    try:
        return max(0, parse_moment(text))
    except (ValueError, OverflowError):
        return None


def _parse_cursor(text: str) -> bytes | None:
    try:
        decision_id = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except ValueError:
        return None
    return decision_id if len(decision_id) == 16 else None
