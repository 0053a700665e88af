"""Monitoring over HTTP: events, their acknowledgement, and drift figures by day or month."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from itertools import islice
from typing import Any, get_args

import msgspec
from flask import Blueprint, Response, request

from peerloan.clock import day_number, moment
from peerloan.formatting import show_value
from peerloan.loan import Problem
from peerloan.loan.validation import show_name
from peerloan.monitoring.alerts import events as stored_events
from peerloan.monitoring.alerts.events import Event
from peerloan.monitoring.counting.storage import Kind
from peerloan.monitoring.queries import read_figures
from peerloan.web.auth.authentication import caller_name
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http.limits import (
    DEFAULT_PAGE_SIZE,
    MAX_BODY_BYTES,
    MAX_DRIFT_DAYS,
    MAX_NAMES,
    MAX_PAGE_SIZE,
)
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.query_parameters import QueryParameters, refuse_parameters
from peerloan.web.http.request_body import decode, read_body
from peerloan.web.http.responses import as_json, require_json
from peerloan.web.services import require_champion, services

blueprint = Blueprint("monitoring", __name__)
_CURSOR = re.compile(r"[0-9]{1,18}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@blueprint.get("/v1/events")
@require_scopes("read")
def events() -> Response:
    """Return a page of events, newest first; `next` is the cursor of the following page."""
    parameters = QueryParameters(("open", "limit", "cursor"))
    only_open = parameters.choice("open", ("true", "false")) == "true"
    limit = parameters.limit(DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)
    cursor = parameters.value("cursor")
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        parameters.refuse("cursor", "the value of `next` in the page before")
    parameters.check()
    before = None if cursor is None else int(cursor)
    # One event more than requested shows whether there is another page.
    page = stored_events.event_page(services().database, limit + 1, before, only_open)
    following = str(page[limit - 1].number) if len(page) > limit else None
    return as_json({"events": [_event_json(event) for event in page[:limit]], "next": following})


@blueprint.post("/v1/events/<event>/acknowledge")
@require_scopes("outcomes")
def acknowledge(event: str) -> Response:
    """Acknowledge an event in the name of the caller. It can be acknowledged only once."""
    refuse_parameters()
    require_json()
    why = _parse_why(read_body(request.environ, MAX_BODY_BYTES))
    try:
        acknowledged = stored_events.acknowledge(
            services().database, event, caller_name(request.environ), why
        )
    except stored_events.UnknownEvent:
        detail = f"there is no event {show_value(event)}"
        raise RequestError(404, "No Such Event", detail) from None
    except stored_events.AlreadyAcknowledged as error:
        raise RequestError(409, "Acknowledged Before", str(error)) from None
    return as_json(_event_json(acknowledged))


@blueprint.get("/v1/drift")
@require_scopes("read")
def drift() -> Response:
    """Return the figures of a version by day or by month, oldest first, and its active alerts."""
    model, kind, since, until = _parse_query()
    result = read_figures(services().database, model, kind, since, until)
    if result is None:
        _require_known_version(model)
        result = [], []
    windows, alerts = result
    name = msgspec.json.encode(model)
    return as_json(
        {
            # A year of figures is megabytes of stored JSON. So each stored object is copied without
            # decoding, after two members that are added here.
            "figures": [
                msgspec.Raw(b'{"model":%b,"day":"%b",' % (name, str(day).encode()) + text)
                for day, text in ((each.day, each.figures[1:].encode()) for each in windows)
            ],
            "alarms": [
                {
                    "rule": each.rule,
                    "about": each.about,
                    "level": each.level,
                    "since": moment(each.since_ms),
                }
                for each in alerts
            ],
        }
    )


def _event_json(event: Event) -> dict[str, Any]:
    acknowledged = None
    if (by := event.acknowledged) is not None:
        acknowledged = {"who": by.who, "time": moment(by.time_ms), "why": by.why}
    return {"event": msgspec.Raw(event.event.encode()), "acknowledged": acknowledged}


def _parse_why(content: bytes) -> str:
    """Parse the reason for an acknowledgement from its body. Raises RequestError."""
    body = decode(content)
    if not isinstance(body, dict):
        wrong = [Problem(None, "(body)", 'an object: {"why": "…"}', show_value(body))]
    else:
        others = (name for name in body if name != "why")
        wrong = [
            Problem(None, show_name(name), "only why", show_value(body[name]))
            for name in islice(others, MAX_NAMES)
        ]
        if not stored_events.is_reason(body.get("why")):
            given = show_value(body["why"]) if "why" in body else "nothing"
            wrong.append(Problem(None, "why", stored_events.WHY_EXPECTED, given))
    if wrong:
        raise RequestError(422, "Wrong Values", sentence(wrong), wrong)
    return str(body["why"])


def _parse_query() -> tuple[str, Kind, int, int]:
    """Parse a version, a kind, and a range of days since 1970. Raises RequestError."""
    parameters = QueryParameters(("model", "kind", "since", "until"))
    model = parameters.text("model")
    kind = parameters.choice("kind", get_args(Kind)) or "day"
    days: list[int | None] = []
    for name in ("since", "until"):
        text = parameters.value(name)
        days.append(None if text is None else _parse_day(text))
        if text is not None and days[-1] is None:
            parameters.refuse(name, "a day (2026-11-25)")
    since, until = days
    if until is None:
        tomorrow = day_number(datetime.now(UTC).date()) + 1  # so that today is included
        until = tomorrow if since is None else since + MAX_DRIFT_DAYS
    if since is None:
        since = until - MAX_DRIFT_DAYS
    if until - since > MAX_DRIFT_DAYS:
        parameters.refuse("until", f"at most {MAX_DRIFT_DAYS} days after since")
    parameters.check()
    if model is None:
        model = require_champion().bundle.version
    return model, "month" if kind == "month" else "day", since, until


def _parse_day(text: str) -> int | None:
    try:
        return day_number(date.fromisoformat(text)) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def _require_known_version(model: str) -> None:
    """Raise RequestError 404 if a version without figures is not in the store either."""
    if model not in services().store.versions():
        raise RequestError(404, "No Such Version", f"there is no version {show_value(model)}")
