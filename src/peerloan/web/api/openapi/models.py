"""The OpenAPI description of model versions."""

from __future__ import annotations

from typing import Any

from peerloan.formatting import PLAIN_LETTER
from peerloan.web.api.openapi.decisions import NO_PARAMETERS, WRONG_TYPE, ref
from peerloan.web.http.limits import MAX_WHY


def paths(responses: Any, champion: str) -> dict[str, Any]:
    """Describe the paths of model versions.

    `responses` makes the description of a route's responses; `champion` is the example version.
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
        "summary": "List all versions, the aliases, and their history",
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
        "summary": "Get one version with its manifest",
        "parameters": [version],
        "responses": responses(
            "The version.",
            ref("Model"),
            {
                "400": NO_PARAMETERS,
                "404": "No such version.",
                "409": "The version's files are damaged or can't be verified.",
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
                "description": "The reason, for the history.",
            },
            "breaking": {
                "type": "boolean",
                "default": False,
                "description": "Promote even if requests that are valid today would be refused.",
            },
        },
        "additionalProperties": False,
    }
    return {
        "operationId": "promote",
        "tags": ["models"],
        "summary": "Make a version the champion",
        "parameters": [version],
        "requestBody": {"content": {"application/json": {"schema": body}}},
        "responses": responses(
            "The change, as the history has it.",
            ref("Change"),
            {
                "400": "The body is not JSON, or the request has query parameters.",
                "403": "A page of another site made the browser send the request.",
                "404": "No such version.",
                "408": "The body did not arrive in time.",
                "409": "The version would refuse loans that the champion accepts (see `reasons`), "
                "can't be verified or served, or is the champion already.",
                "413": "More than 5 MB.",
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
        "refused": {
            "type": "string",
            "description": "Why the version can't be read.",
        },
    }
    return {"type": "object", "properties": properties, "required": ["version", "aliases"]}


def _version() -> dict[str, Any]:
    properties = dict(_listed_version()["properties"])
    del properties["refused"]
    properties["manifest"] = {
        "type": "object",
        "description": "The complete manifest of the version's bundle.",
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
        "deleted": {"type": "string", "description": "Only for a deletion: the deleted version."},
        "explanation": {
            "type": "object",
            "description": "Only if a reason was added later: the reason, who added it, and when.",
            "properties": added,
            "required": list(added),
        },
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in ("deleted", "explanation")],
    }
