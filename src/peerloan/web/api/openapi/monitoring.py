"""The OpenAPI description of monitoring's events and figures."""

from __future__ import annotations

from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from peerloan.formatting import PLAIN_LETTER
from peerloan.loan.text import MAX_TEXT
from peerloan.monitoring.alerts import events
from peerloan.monitoring.alerts.events import MAX_WHY
from peerloan.monitoring.alerts.rules import Alert, Level
from peerloan.monitoring.counting.storage import Kind
from peerloan.monitoring.performance import (
    BandCalibration,
    EstimatedPerformance,
    ObservedCalibration,
    RealisedPerformance,
)
from peerloan.stats.estimate import Estimate
from peerloan.web.api.openapi.decisions import POSTED, WRONG_TYPE, ref
from peerloan.web.http.limits import DEFAULT_PAGE_SIZE, MAX_DRIFT_DAYS, MAX_PAGE_SIZE

TYPES = (
    *(events.BEGAN, events.ROSE, events.ENDED),
    *(events.MADE, events.REFUSED, events.PROMOTED),
)
_UNAVAILABLE = {"503": "The ledger does not answer now."}
# Schemas that are made from the fields of these classes, by their public names.
_NAMED: dict[type, str] = {
    Estimate: "Estimate",
    EstimatedPerformance: "Estimated",
    RealisedPerformance: "Realised",
    ObservedCalibration: "Calibration",
    BandCalibration: "InBand",
    Alert: "Spoken",
}


def paths(responses: Any) -> dict[str, Any]:
    """Describe events and figures; `responses` makes the description of a route's responses."""
    return {
        "/v1/events": {"get": _events(responses)},
        "/v1/events/{event}/acknowledge": {"post": _acknowledge(responses)},
        "/v1/drift": {"get": _drift(responses)},
    }


def schemas() -> dict[str, Any]:
    """Make the schemas of the responses. A later release may add members to figures and events."""
    time = {"type": "string", "format": "date-time"}
    text = {"type": "string"}
    noted = _object({"who": text, "time": time, "why": text})
    level = {"enum": list(get_args(Level))}
    return {
        "Event": _object(
            {
                "event": ref("CloudEvent"),
                "acknowledged": {"oneOf": [noted, {"type": "null"}]},
            }
        ),
        "CloudEvent": _object(
            {
                "specversion": {"type": "string", "enum": ["1.0"]},
                "id": {"type": "string", "format": "uuid"},
                "source": text,
                "type": {"type": "string", "enum": list(TYPES)},
                "subject": {"type": "string", "description": "The version's name."},
                "time": time,
                "datacontenttype": text,
                "data": {"type": "object", "description": "What it tells, by its type."},
            }
        ),
        "Alarm": _object({"rule": text, "about": text, "level": level, "since": time}),
        "Figures": _figures(),
        "DriftFigures": _object(_moved()),
        **{name: _fields(figures) for figures, name in _NAMED.items()},
    }


def _events(responses: Any) -> dict[str, Any]:
    listed = _object(
        {
            "events": {"type": "array", "items": ref("Event")},
            "next": {"type": ["string", "null"], "description": "The next page's cursor."},
        }
    )
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}
    limit["default"] = DEFAULT_PAGE_SIZE
    choice = {"type": "string", "enum": ["true", "false"], "default": "false"}
    cursor = {"type": "string", "pattern": "^[0-9]{1,18}$"}
    return {
        "operationId": "events",
        "tags": ["monitoring"],
        "summary": "What the rules have told, the newest first",
        "parameters": [
            _parameter("open", choice, "Only those that nobody has taken note of."),
            _parameter("limit", limit, "So many at most."),
            _parameter("cursor", cursor, "The page before's next."),
        ],
        "responses": responses(
            "A page of events.", listed, _UNAVAILABLE | {"400": "A parameter is wrong."}
        ),
    }


def _acknowledge(responses: Any) -> dict[str, Any]:
    why = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_WHY,
        "pattern": f"^{PLAIN_LETTER}+$",
        "description": "What was found, or done about it.",
    }
    body = _object({"why": why}) | {"additionalProperties": False}
    event = {"type": "string", "format": "uuid"}
    return {
        "operationId": "acknowledge",
        "tags": ["monitoring"],
        "summary": "Take note of an event; who did so first stands",
        "parameters": [{"name": "event", "in": "path", "required": True, "schema": event}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses(
            "The event, with who took note of it.",
            ref("Event"),
            POSTED
            | _UNAVAILABLE
            | {
                "400": "The body is no JSON, or there are parameters.",
                "404": "No such event.",
                "408": "The body stopped arriving.",
                "409": "Somebody took note of it before.",
                "413": "Over 5 MB.",
                "415": WRONG_TYPE,
                "422": "Wrong values.",
            },
        ),
    }


def _drift(responses: Any) -> dict[str, Any]:
    model = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "pattern": f"^{PLAIN_LETTER}*$",
    }
    kind = {"type": "string", "enum": list(get_args(Kind)), "default": "day"}
    day = {"type": "string", "format": "date"}
    answer = _object(
        {
            "figures": {"type": "array", "items": ref("Figures")},
            "alarms": {"type": "array", "items": ref("Alarm")},
        }
    )
    return {
        "operationId": "drift",
        "tags": ["monitoring"],
        "summary": "What was said of a version by day or month, the oldest first, and what speaks",
        "parameters": [
            _parameter("model", model, "This version; the champion without it."),
            _parameter("kind", kind, "Windows that end on a day, or whole months."),
            _parameter("since", day, "Of this day or later."),
            _parameter(
                "until", day, f"Before this day, at most {MAX_DRIFT_DAYS} days after since."
            ),
        ],
        "responses": responses(
            "Figures and alarms.",
            answer,
            {
                "400": "A parameter is wrong.",
                "404": "No such version.",
                "503": "The ledger does not answer now, or no model version is being served.",
            },
        ),
    }


def _figures() -> dict[str, Any]:
    text, moment = {"type": "string"}, {"type": "string", "description": "An hour, in UTC."}
    challenger = _object({"model": text, "realised": ref("Realised")})
    return _object(
        {
            "model": {"type": "string", "description": "The version."},
            "day": {
                "type": "string",
                "format": "date",
                "description": "The window's last day, or the month's first.",
            },
            "window": _object({"since": moment, "until": moment, "loans": {"type": "integer"}}),
            "features": {"type": "array", "items": _object({"feature": text} | _moved())},
            "score": ref("DriftFigures"),
            "estimated": ref("Estimated"),
            "realised": _or_null(ref("Realised")),
            "challengers": {"type": "array", "items": challenger},
            "calibration": _or_null(ref("Calibration")),
            "rules": {"type": "array", "items": ref("Spoken")},
        }
    )


def _moved() -> dict[str, Any]:
    """Describe the drift of a feature, or of the probability."""
    number, text, loans = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    bins = _object({"bin": text, "loans": loans, "reference": number})
    interval = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    return {
        "psi": number,
        "by_chance": number,
        "interval": interval | {"description": "Of the PSI without chance, 95 %."},
        "missing": ref("Estimate"),
        "reference_missing": number,
        "bins": {"type": "array", "items": bins},
        "strange": {"type": "array", "items": _object({"value": text, "loans": loans})},
    }


def _fields(kind: type) -> dict[str, Any]:
    """Describe an object by the fields of a named tuple."""
    return _object({name: _schema(hint) for name, hint in get_type_hints(kind).items()})


def _schema(hint: Any) -> dict[str, Any]:
    if hint in _NAMED:
        return ref(_NAMED[hint])
    if get_origin(hint) is list:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if get_origin(hint) is Literal:
        return {"enum": list(get_args(hint))}
    if NoneType in get_args(hint):
        return _or_null(_schema(get_args(hint)[0]))
    return {"type": {int: "integer", float: "number", str: "string"}[hint]}


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    if "type" in schema:
        return schema | {"type": [schema["type"], "null"]}
    return {"oneOf": [schema, {"type": "null"}]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _parameter(name: str, schema: dict[str, Any], words: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": words, "schema": schema}
