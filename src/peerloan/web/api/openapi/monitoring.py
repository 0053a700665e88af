"""The OpenAPI description of monitoring: events and drift figures."""

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
_UNAVAILABLE = {"503": "The ledger is unavailable."}
# The classes whose fields are described as schemas, and the names of the schemas.
_SCHEMA_NAMES: dict[type, str] = {
    Estimate: "Estimate",
    EstimatedPerformance: "Estimated",
    RealisedPerformance: "Realised",
    ObservedCalibration: "Calibration",
    BandCalibration: "InBand",
    Alert: "Spoken",
}


def paths(responses: Any) -> dict[str, Any]:
    """Describe monitoring's paths; `responses` makes the description of a route's responses."""
    return {
        "/v1/events": {"get": _events(responses)},
        "/v1/events/{event}/acknowledge": {"post": _acknowledge(responses)},
        "/v1/drift": {"get": _drift(responses)},
    }


def schemas() -> dict[str, Any]:
    """Make the schemas of the responses. A future release may add members to figures and events."""
    time = {"type": "string", "format": "date-time"}
    text = {"type": "string"}
    acknowledgement = _object({"who": text, "time": time, "why": text})
    level = {"enum": list(get_args(Level))}
    return {
        "Event": _object(
            {
                "event": ref("CloudEvent"),
                "acknowledged": {"oneOf": [acknowledgement, {"type": "null"}]},
            }
        ),
        "CloudEvent": _object(
            {
                "specversion": {"type": "string", "enum": ["1.0"]},
                "id": {"type": "string", "format": "uuid"},
                "source": text,
                "type": {"type": "string", "enum": list(TYPES)},
                "subject": {"type": "string", "description": "The model version."},
                "time": time,
                "datacontenttype": text,
                "data": {
                    "type": "object",
                    "description": "The details of the event; its members depend on the type.",
                },
            }
        ),
        "Alarm": _object({"rule": text, "about": text, "level": level, "since": time}),
        "Figures": _figures(),
        "DriftFigures": _object(_drift_members()),
        **{name: _class_schema(figures) for figures, name in _SCHEMA_NAMES.items()},
    }


def _events(responses: Any) -> dict[str, Any]:
    listed = _object(
        {
            "events": {"type": "array", "items": ref("Event")},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the next page; null on the last page.",
            },
        }
    )
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}
    limit["default"] = DEFAULT_PAGE_SIZE
    choice = {"type": "string", "enum": ["true", "false"], "default": "false"}
    cursor = {"type": "string", "pattern": "^[0-9]{1,18}$"}
    return {
        "operationId": "events",
        "tags": ["monitoring"],
        "summary": "List the events of monitoring, newest first",
        "parameters": [
            _parameter("open", choice, "Whether to list only events that nobody has acknowledged."),
            _parameter("limit", limit, "The largest number of events in a page."),
            _parameter("cursor", cursor, "The value of `next` in the page before."),
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
        "description": "What was found out, or done about it.",
    }
    body = _object({"why": why}) | {"additionalProperties": False}
    event = {"type": "string", "format": "uuid"}
    return {
        "operationId": "acknowledge",
        "tags": ["monitoring"],
        "summary": "Acknowledge an event, which is possible once",
        "parameters": [{"name": "event", "in": "path", "required": True, "schema": event}],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": responses(
            "The event with its acknowledgement.",
            ref("Event"),
            POSTED
            | _UNAVAILABLE
            | {
                "400": "The body is not JSON, or the request has query parameters.",
                "404": "No such event.",
                "408": "The body did not arrive in time.",
                "409": "The event was acknowledged before.",
                "413": "More than 5 MB.",
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
        "summary": "Get a version's figures by day or month, oldest first, and its active alerts",
        "parameters": [
            _parameter("model", model, "The model version; by default the champion."),
            _parameter("kind", kind, "Whether the windows end on each day or are calendar months."),
            _parameter("since", day, "Only figures from this day on."),
            _parameter(
                "until",
                day,
                f"Only figures before this day; at most {MAX_DRIFT_DAYS} days after `since`.",
            ),
        ],
        "responses": responses(
            "The figures and the active alerts.",
            answer,
            {
                "400": "A parameter is wrong.",
                "404": "No such version.",
                "503": "The ledger is unavailable, or no model version is being served.",
            },
        ),
    }


def _figures() -> dict[str, Any]:
    text, moment = {"type": "string"}, {"type": "string", "description": "An hour in UTC."}
    challenger = _object({"model": text, "realised": ref("Realised")})
    return _object(
        {
            "model": {"type": "string", "description": "The model version."},
            "day": {
                "type": "string",
                "format": "date",
                "description": "The last day of the window, or the first day of the month.",
            },
            "window": _object({"since": moment, "until": moment, "loans": {"type": "integer"}}),
            "features": {"type": "array", "items": _object({"feature": text} | _drift_members())},
            "score": ref("DriftFigures"),
            "estimated": ref("Estimated"),
            "realised": _or_null(ref("Realised")),
            "challengers": {"type": "array", "items": challenger},
            "calibration": _or_null(ref("Calibration")),
            "rules": {"type": "array", "items": ref("Spoken")},
        }
    )


def _drift_members() -> dict[str, Any]:
    """Describe the drift of a feature, or of the probability."""
    number, text, loans = {"type": "number"}, {"type": "string"}, {"type": "integer"}
    bins = _object({"bin": text, "loans": loans, "reference": number})
    interval = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    return {
        "psi": number,
        "by_chance": number,
        "interval": interval | {"description": "The 95 % interval of the bias-corrected PSI."},
        "missing": ref("Estimate"),
        "reference_missing": number,
        "bins": {"type": "array", "items": bins},
        "strange": {"type": "array", "items": _object({"value": text, "loans": loans})},
    }


def _class_schema(kind: type) -> dict[str, Any]:
    """Describe an object by the fields of a named tuple."""
    return _object({name: _schema(hint) for name, hint in get_type_hints(kind).items()})


def _schema(hint: Any) -> dict[str, Any]:
    if hint in _SCHEMA_NAMES:
        return ref(_SCHEMA_NAMES[hint])
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


def _parameter(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
