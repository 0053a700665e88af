"""Watching the model over HTTP: its events, who took note of them, and the history of its drift."""

from __future__ import annotations

import logging
import re
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from peerloan.ledger import LedgerUnavailable
from peerloan.ledger.database import now_ms
from peerloan.ledger.moments import EXPECTED, moment, parse_moment
from peerloan.ledger.reports import DAY_MS
from peerloan.loan import Problem
from peerloan.loan.checks import show_name
from peerloan.loan.text import TEXT_EXPECTED, has_control, show_given, text_fault
from peerloan.monitoring.events import (
    Acknowledged,
    AlreadyAcknowledged,
    Event,
    UnknownEvent,
    Wanted,
    page,
)
from peerloan.monitoring.events import acknowledge as acknowledge_event
from peerloan.monitoring.history import MOST, Said, read_figures
from peerloan.service import keeping, problems
from peerloan.service.api import MAX_BODY_BYTES, as_json, champion, require_json, serving
from peerloan.service.bodies import MAX_WHY, decode, read_body
from peerloan.service.callers import caller_name
from peerloan.service.keeping import database
from peerloan.service.openapi_monitoring import KINDS, MAX_EVENTS, USUAL_EVENTS
from peerloan.service.problems import RequestError

blueprint = Blueprint("monitoring", __name__)
log = logging.getLogger(__name__)
_LIMIT = re.compile(r"[0-9]{1,6}")
_CURSOR = re.compile(r"[1-9][0-9]{0,17}")


@blueprint.errorhandler(LedgerUnavailable)
def fault(error: LedgerUnavailable) -> Response:
    """What the database says is for the log alone."""
    log.error("the ledger can't be asked: %s", error)
    return problems.answer(
        keeping.unavailable("The ledger can't be asked now; try again in a moment.")
    )


@blueprint.get("/v1/events")
def events() -> Response:
    """A page of events, the newest first; `next` is the cursor of the page after it."""
    asked = _Asked("since", "open", "version", "limit", "cursor")
    limit = asked.text("limit", str(USUAL_EVENTS))
    asked.expect("limit", f"a whole number from 1 to {MAX_EVENTS:,}", _is_limit(limit))
    cursor = asked.text("cursor", "1")
    asked.expect("cursor", "the `next` of the page before", _CURSOR.fullmatch(cursor) is not None)
    is_open = asked.text("open", "false")
    asked.expect("open", "true or false", is_open in ("true", "false"))
    wanted = Wanted(asked.time("since"), is_open == "true", asked.version())
    asked.refuse()
    before = int(cursor) if "cursor" in asked.given else None
    # One more than asked for tells whether there is another page.
    found = page(database(), wanted, int(limit) + 1, before)
    shown = found[: int(limit)]
    following = str(shown[-1].number) if len(found) > len(shown) else None
    return as_json({"events": [_event(each) for each in shown], "next": following})


@blueprint.post("/v1/events/<event>/acknowledge")
def acknowledge(event: str) -> Response:
    """Keep that a caller has taken note of an event, and why so; the first one holds."""
    _Asked().refuse()
    require_json()
    body = decode(read_body(request.environ, MAX_BODY_BYTES))
    why = body.get("why") if isinstance(body, dict) else None
    wrong = []
    if not isinstance(body, dict):
        wrong = [Problem(None, "(body)", 'an object: {"why": "…"}', show_given(body))]
    else:
        wrong = [
            Problem(None, show_name(name), "nothing but why", show_given(value))
            for name, value in body.items()
            if name != "why"
        ]
        if not isinstance(why, str) or not 0 < len(why) <= MAX_WHY or has_control(why):
            expected = f"text of 1 to {MAX_WHY:,} characters without control characters"
            wrong.append(Problem(None, "why", expected, show_given(why)))
    if wrong:
        raise RequestError(422, "Wrong Values", problems.sentence(wrong), wrong)
    try:
        # No id is other than plain ASCII, and no database takes every letter.
        if not event.isascii() or has_control(event):
            raise UnknownEvent
        return as_json(
            _noted(acknowledge_event(database(), event, caller_name(request.environ), str(why)))
        )
    except UnknownEvent:
        detail = f"there is no event {show_given(event)}"
        raise RequestError(404, "No Such Event", detail) from None
    except AlreadyAcknowledged as error:
        raise RequestError(409, "Already Acknowledged", str(error)) from None


@blueprint.get("/v1/drift")
def drift() -> Response:
    """What was said of a version's drift, the oldest first; by default the champion's last year."""
    asked = _Asked("version", "kind", "since", "until")
    kind = asked.text("kind", "day")
    asked.expect("kind", " or ".join(KINDS), kind in KINDS)
    since, until, version = asked.time("since"), asked.time("until"), asked.version()
    asked.refuse()
    if version is None:
        version = serving(champion()).bundle.version
    # A day counts by its begin: from the first time on, and before the second.
    until_day = -(-(now_ms() + 1 if until is None else until) // DAY_MS)
    since_day = until_day - MOST if kind == "day" else 0
    if since is not None:
        since_day = -(-since // DAY_MS)
    found = read_figures(database(), version, kind, since_day, until_day)
    return as_json({"figures": [_figures(each) for each in found]})


def _figures(said: Said) -> msgspec.Raw:
    """The kept object with two members more, without reading it: a year of them takes a while."""
    head = msgspec.json.encode({"version": said.version, "day": said.day})
    kept = said.figures.strip().encode()
    return msgspec.Raw(head if kept[1:-1].strip() == b"" else head[:-1] + b"," + kept[1:])


def _event(event: Event) -> dict[str, Any]:
    return {
        "event": msgspec.Raw(event.event.encode()),
        "acknowledged": None if event.acknowledged is None else _noted(event.acknowledged),
        "told": [
            {
                "channel": each.channel,
                "state": each.state,
                "attempts": each.attempts,
                "next": None if each.next_ms is None else moment(each.next_ms),
                "fault": each.fault,
            }
            for each in event.told
        ],
    }


def _noted(noted: Acknowledged) -> dict[str, Any]:
    return {"time": moment(noted.time_ms), "who": noted.who, "why": noted.why}


def _is_limit(text: str) -> bool:
    return _LIMIT.fullmatch(text) is not None and 1 <= int(text) <= MAX_EVENTS


class _Asked:
    """A request's parameters, of these names, and what is wrong with them."""

    def __init__(self, *names: str) -> None:
        self.given: dict[str, str] = {}
        self._wrong: list[Problem] = []
        known = f"one of the parameters {', '.join(names)}" if names else "no parameters"
        for name, values in request.args.to_dict(flat=False).items():
            if name not in names:
                self._refuse(name, known, values[-1])
            elif len(values) > 1:
                self._refuse(name, "one value", " and ".join(values[:3]))
            else:
                self.given[name] = values[0]

    def text(self, name: str, usual: str) -> str:
        """A parameter's value, or the usual one."""
        return self.given.get(name, usual)

    def expect(self, name: str, expected: str, good: bool) -> None:
        """Remember what was expected of a parameter that is not good."""
        if not good:
            self._refuse(name, expected, self.given[name])

    def version(self) -> str | None:
        """The model version that is named."""
        given = self.given.get("version")
        if given is not None:
            self.expect("version", TEXT_EXPECTED, text_fault(given) is None)
        return given

    def time(self, name: str) -> int | None:
        """A day or moment, in milliseconds since 1970, or none."""
        if name not in self.given:
            return None
        try:
            return max(0, parse_moment(self.given[name]))
        except (ValueError, OverflowError):
            self.expect(name, EXPECTED, good=False)
            return None

    def refuse(self) -> None:
        """Raise RequestError if anything is wrong."""
        if self._wrong:
            detail = problems.sentence(self._wrong)
            raise RequestError(400, "Wrong Parameters", detail, self._wrong)

    def _refuse(self, name: str, expected: str, given: str) -> None:
        self._wrong.append(Problem(None, f"?{name[:50]}", expected, show_given(given)))
