"""The OpenAPI description of the store's versions."""

from __future__ import annotations

from typing import Any

from peerloan.loan.text import PLAIN_LETTER
from peerloan.web.api.openapi.decisions import NO_PARAMETERS, WRONG_TYPE, ref
from peerloan.web.http.limits import MAX_WHY


def paths(responses: Any, champion: str) -> dict[str, Any]:
    """Describe versions, one version and its promotion.

    `responses` makes the description of a route's responses.
    """
    version: dict[str, Any] = {"name": "version", "in": "path", "required": True}
    version |= {"schema": {"type": "string"}, "example": champion}
    return {
        "/v1/models": {"get": _models(responses)},
        "/v1/models/{version}": {"get": _model(responses, version)},
        "/v1/models/{version}/promote": {"post": _promote(responses, version)},
    }


def schemas() -> dict[str, Any]:
    """Make the schemas of the responses."""
    return {"ListedModel": _listed_version(), "Model": _version(), "Change": _change()}


def _models(responses: Any) -> dict[str, Any]:
    version = {"type": ["string", "null"]}
    answer = {
        "type": "object",
        "properties": {
            "champion": version,
            "challenger": version,
            "versions": {"type": "array", "items": ref("ListedModel")},
            "history": {"type": "array", "items": ref("Change")},
        },
        "required": ["champion", "challenger", "versions", "history"],
    }
    return {
        "operationId": "models",
        "tags": ["models"],
        "summary": "Every version, which one serves, and how it came to be so",
        "responses": responses(
            "The store's versions, oldest first.",
            answer,
            {"400": NO_PARAMETERS, "503": "The store can't be read."},
        ),
    }


def _model(responses: Any, version: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": "model",
        "tags": ["models"],
        "summary": "One version, with its manifest",
        "parameters": [version],
        "responses": responses(
            "The version.",
            ref("Model"),
            {
                "400": NO_PARAMETERS,
                "404": "No such version.",
                "409": "The version does not verify.",
                "503": "The store can't be read.",
            },
        ),
    }


def _promote(responses: Any, version: dict[str, Any]) -> dict[str, Any]:
    body = {
        "type": "object",
        "properties": {
            "why": {
                "type": "string",
                "maxLength": MAX_WHY,
                "pattern": f"^{PLAIN_LETTER}*$",
                "description": "For the history.",
            },
            "breaking": {
                "type": "boolean",
                "default": False,
                "description": "Even if requests that are valid today would fail.",
            },
        },
        "additionalProperties": False,
    }
    return {
        "operationId": "promote",
        "tags": ["models"],
        "summary": "Make a version the champion; it needs an operator's token",
        "parameters": [version],
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": responses(
            "The change, as it stands in the history.",
            ref("Change"),
            {
                "400": "The body is no JSON, or there are parameters.",
                "403": "A page of another site made a browser send this.",
                "404": "No such version.",
                "408": "The body stopped arriving.",
                "409": "It would refuse loans that the champion accepts (`reasons`), does not "
                "verify, can't be served, or is already the champion.",
                "413": "Over 5 MB.",
                "415": WRONG_TYPE,
                "422": "Wrong values.",
                "503": "The store can't be read or written.",
            },
        ),
    }


def _listed_version() -> dict[str, Any]:
    properties = {
        "version": {"type": "string"},
        "aliases": {"type": "array", "items": {"enum": ["champion", "challenger"]}},
        "digest": {"type": "string"},
        "candidate": {"type": "string"},
        "kind": {"enum": ["scorecard", "onnx"]},
        "created": {"type": "string"},
        "sample": {"type": "boolean", "description": "Trained on the built-in sample."},
        "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
        "refused": {"type": "string", "description": "Why it can't be read; then nothing more."},
    }
    return {"type": "object", "properties": properties, "required": ["version", "aliases"]}


def _version() -> dict[str, Any]:
    properties = dict(_listed_version()["properties"])
    del properties["refused"]
    properties["manifest"] = {
        "type": "object",
        "description": "All that the bundle says of itself.",
    }
    return {"type": "object", "properties": properties, "required": list(properties)}


def _change() -> dict[str, Any]:
    version = {"type": ["string", "null"]}
    when = {"type": "string", "format": "date-time"}
    added = {"why": {"type": "string"}, "who": {"type": "string"}, "when": when}
    properties = {
        "number": {"type": "integer"},
        "action": {"enum": ["promote", "challenge", "rollback", "delete"]},
        "champion": version,
        "challenger": version,
        "who": {"type": "string"},
        "when": when,
        "why": {"type": "string"},
        "deleted": {"type": "string", "description": "Of a deletion: the version."},
        "explanation": {
            "type": "object",
            "description": "The reason, where it was added later; who did so, and when.",
            "properties": added,
            "required": list(added),
        },
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in ("deleted", "explanation")],
    }
