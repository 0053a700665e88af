"""Monitoring over HTTP: events, their acknowledgement, and figures by day."""

from __future__ import annotations

import logging
import re
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, get_args

import msgspec
from flask import Blueprint, Response, request

from peerloan.clock import day_number, moment
from peerloan.database import LedgerUnavailable
from peerloan.formatting import show_value
from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.monitoring.alerts import events as kept
from peerloan.monitoring.alerts.events import Event
from peerloan.monitoring.counting.storage import Kind
from peerloan.monitoring.queries import read_figures
from peerloan.web.auth.authentication import caller_name
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http import problems
from peerloan.web.http.limits import (
    DEFAULT_PAGE_SIZE,
    MAX_BODY_BYTES,
    MAX_DRIFT_DAYS,
    MAX_NAMES,
    MAX_PAGE_SIZE,
)
from peerloan.web.http.problems import RequestError
from peerloan.web.http.query_parameters import QueryParameters, refuse_parameters
from peerloan.web.http.request_body import decode, read_body
from peerloan.web.http.responses import as_json, require_json
from peerloan.web.services import require_champion, services

blueprint = Blueprint("monitoring", __name__)
log = logging.getLogger(__name__)
_CURSOR = re.compile(r"[0-9]{1,18}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@blueprint.errorhandler(LedgerUnavailable)
def fault(error: LedgerUnavailable) -> Response:
    """Answer 503. The database's message goes to the log only."""
    log.error("events and figures can't be read or written: %s", error)
    return problems.answer(
        problems.ledger_unavailable("The ledger does not answer now; try again in a moment.")
    )


@blueprint.get("/v1/events")
@require_scopes("read")
def events() -> Response:
    """Return a page of events, newest first; `next` is the cursor of the following page."""
    asked = QueryParameters(("open", "limit", "cursor"))
    only_open = asked.choice("open", ("true", "false")) == "true"
    limit = asked.limit(DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    cursor = asked.value("cursor")
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        asked.refuse("cursor", "the `next` of the page before")
    asked.check()
    before = None if cursor is None else int(cursor)
    # One more than requested shows whether there is another page.
    found = kept.event_page(services().database, limit + 1, before, only_open)
    following = str(found[limit - 1].number) if len(found) > limit else None
    return as_json({"events": [_event_json(each) for each in found[:limit]], "next": following})


@blueprint.post("/v1/events/<event>/acknowledge")
@require_scopes("outcomes")
def acknowledge(event: str) -> Response:
    """Acknowledge an event as this caller; the first acknowledgement remains."""
    refuse_parameters()
    require_json()
    why = _why(read_body(request.environ, MAX_BODY_BYTES))
    try:
        found = kept.acknowledge(services().database, event, caller_name(request.environ), why)
    except kept.UnknownEvent:
        detail = f"there is no event {show_value(event)}"
        raise RequestError(404, "No Such Event", detail) from None
    except kept.AlreadyAcknowledged as error:
        raise RequestError(409, "Acknowledged Before", str(error)) from None
    return as_json(_event_json(found))


@blueprint.get("/v1/drift")
@require_scopes("read")
def drift() -> Response:
    """Return the figures of a version by day or by month, oldest first, and its active alerts."""
    model, kind, since, until = _parse_query()
    found = read_figures(services().database, model, kind, since, until)
    if found is None:
        _require_known_version(model)
        found = [], []
    said, alarms = found
    name = msgspec.json.encode(model)
    return as_json(
        {
            # Figures of a year are megabytes of stored JSON, so they are copied without decoding:
            # each stored object follows two more members.
            "figures": [
                msgspec.Raw(b'{"model":%b,"day":"%b",' % (name, str(day).encode()) + text)
                for day, text in ((each.day, each.figures[1:].encode()) for each in said)
            ],
            "alarms": [
                {
                    "rule": each.rule,
                    "about": each.about,
                    "level": each.level,
                    "since": moment(each.since_ms),
                }
                for each in alarms
            ],
        }
    )


def _event_json(found: Event) -> dict[str, Any]:
    acknowledged = None
    if (by := found.acknowledged) is not None:
        acknowledged = {"who": by.who, "time": moment(by.time_ms), "why": by.why}
    return {"event": msgspec.Raw(found.event.encode()), "acknowledged": acknowledged}


def _why(content: bytes) -> str:
    """Parse the caller's reason. Raises RequestError."""
    body = decode(content)
    if not isinstance(body, dict):
        wrong = [Problem(None, "(body)", 'an object: {"why": "…"}', show_value(body))]
    else:
        others = (name for name in body if name != "why")
        wrong = [
            Problem(None, show_name(name), "nothing but why", show_value(body[name]))
            for name in islice(others, MAX_NAMES)
        ]
        if not kept.is_reason(body.get("why")):
            given = show_value(body["why"]) if "why" in body else "nothing"
            wrong.append(Problem(None, "why", kept.WHY_EXPECTED, given))
    if wrong:
        raise RequestError(422, "Wrong Values", problems.sentence(wrong), wrong)
    return str(body["why"])


def _parse_query() -> tuple[str, Kind, int, int]:
    """Parse a version, a kind, and a range of days since 1970. Raises RequestError."""
    asked = QueryParameters(("model", "kind", "since", "until"))
    model = asked.text("model")
    kind = asked.choice("kind", get_args(Kind)) or "day"
    days: list[int | None] = []
    for name in ("since", "until"):
        text = asked.value(name)
        days.append(None if text is None else _day(text))
        if text is not None and days[-1] is None:
            asked.refuse(name, "a day (2026-11-25)")
    since, until = days
    if until is None:
        # Today is included.
        after = day_number(datetime.now(UTC).date()) + 1
        until = after if since is None else since + MAX_DRIFT_DAYS
    if since is None:
        since = until - MAX_DRIFT_DAYS
    if until - since > MAX_DRIFT_DAYS:
        asked.refuse("until", f"at most {MAX_DRIFT_DAYS} days after since")
    asked.check()
    if model is None:
        model = require_champion().bundle.version
    return model, "month" if kind == "month" else "day", since, until


def _day(text: str) -> int | None:
    try:
        return day_number(date.fromisoformat(text)) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def _require_known_version(model: str) -> None:
    """Raise RequestError if a version without decisions is not in the store either."""
    if model not in services().store.versions():
        raise RequestError(404, "No Such Version", f"there is no version {show_value(model)}")
