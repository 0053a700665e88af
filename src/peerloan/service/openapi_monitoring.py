"""The part of the API's description that is about watching the model: events, drift."""

from __future__ import annotations

from typing import Any

from peerloan.loan.text import PLAIN_LETTER
from peerloan.service.bodies import MAX_WHY

# Events of a page.
USUAL_EVENTS, MAX_EVENTS = 100, 1_000
KINDS = ("day", "month")
_MOMENT = {"type": "string", "format": "date-time"}
_VERSION = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": f"^{PLAIN_LETTER}*$"}


def paths(responses: Any) -> dict[str, Any]:
    """Reading and acknowledging; `responses` describes what a route answers."""
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_EVENTS, "default": USUAL_EVENTS}
    page = _object(
        {
            "events": {"type": "array", "items": _ref("Event")},
            "next": {"type": ["string", "null"], "description": "The next page's cursor."},
        }
    )
    figures = _object({"figures": {"type": "array", "items": _ref("Figures")}})
    why = _VERSION | {"maxLength": MAX_WHY, "description": "What you found, or did about it."}
    body = _object({"why": why}) | {"additionalProperties": False}
    reading = {"400": "A parameter is wrong.", "503": "The ledger can't be read now."}
    return {
        "/v1/events": {
            "get": {
                "operationId": "events",
                "tags": ["monitoring"],
                "summary": "What watching the model had to tell, the newest first",
                "parameters": _parameters(
                    since=(_MOMENT, "Of this day or moment or later."),
                    open=({"type": "string", "enum": ["true", "false"]}, "Not acknowledged yet."),
                    version=(_VERSION, "Of this model version."),
                    limit=(limit, "So many at most."),
                    cursor=(
                        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
                        "The page before's next.",
                    ),
                ),
                "responses": responses("A page of events.", page, reading),
            }
        },
        "/v1/events/{event}/acknowledge": {
            "post": {
                "operationId": "acknowledge",
                "tags": ["monitoring"],
                "summary": "Take note of an event, in the name of the token",
                "parameters": [
                    {
                        "name": "event",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": body}},
                },
                "responses": responses(
                    "It is kept.",
                    _acknowledged(),
                    {
                        "400": "The body is no JSON, or there are parameters.",
                        "404": "No such event.",
                        "408": "The body stopped arriving.",
                        "409": "Somebody, who is named, has done so before.",
                        "413": "Over 5 MB.",
                        "415": "The body's type is no JSON.",
                        "422": "Wrong values.",
                        "503": "The ledger can't be written to now.",
                    },
                ),
            }
        },
        "/v1/drift": {
            "get": {
                "operationId": "drift",
                "tags": ["monitoring"],
                "summary": "What was said of a version's drift, the oldest first",
                "parameters": _parameters(
                    version=(_VERSION, "Of this model version; else the champion."),
                    kind=({"type": "string", "enum": list(KINDS), "default": "day"}, "Of what."),
                    since=(_MOMENT, "Of this day or later; else 366 days before `until`."),
                    until=(_MOMENT, "Before this day; else up to today."),
                ),
                "responses": responses(
                    "The figures, the newest 366.",
                    figures,
                    reading | {"503": "The ledger can't be read, or no version is served."},
                ),
            }
        },
    }


def schemas() -> dict[str, Any]:
    """An event with what became of it, and a day's or a month's figures."""
    told = {
        "channel": {"type": "string"},
        "state": {"enum": ["told", "waiting", "given up"]},
        "attempts": {"type": "integer"},
        "next": {"type": ["string", "null"], "format": "date-time"},
        "fault": {"type": ["string", "null"]},
    }
    figures = {"version": {"type": "string"}, "day": {"type": "string", "format": "date"}}
    return {
        "Event": _object(
            {
                "event": {"type": "object", "description": "As CloudEvents 1.0 has it."},
                "acknowledged": _acknowledged() | {"type": ["object", "null"]},
                "told": {"type": "array", "items": _object(told)},
            }
        ),
        "Figures": _object(figures) | {"description": "And the figures, as they were kept."},
    }


def _acknowledged() -> dict[str, Any]:
    return _object({"time": _MOMENT, "who": {"type": "string"}, "why": {"type": "string"}})


def _parameters(**described: tuple[dict[str, Any], str]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "description": words, "schema": schema}
        for name, (schema, words) in described.items()
    ]


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
