"""The API as OpenAPI 3.1, made from the definition that validates its requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peerloan import __version__
from peerloan.loan import json_schema
from peerloan.loan.json_schema import example
from peerloan.model import BANDS
from peerloan.web.api.openapi import (
    decisions,
    inference_protocol,
    models,
    monitoring,
    outcomes,
)
from peerloan.web.api.openapi.decisions import ref
from peerloan.web.auth.endpoint_scopes import Guard
from peerloan.web.auth.tokens import PROMOTE, SCOPES
from peerloan.web.http.limits import MAX_LOANS
from peerloan.web.prediction.serving_models import LoadedModel

# Responses of every route that needs a token.
_OF_ALL = {
    "401": "No token, or an unknown one.",
    "403": "The token does not have the scope.",
    "503": "The tokens can't be read now.",
}


def document(
    serving: LoadedModel, guards: Mapping[tuple[str, str], Guard], prefix: str = ""
) -> dict[str, Any]:
    """Make the OpenAPI document for the current champion, under a path prefix if there is one.

    `guards` are the scopes that each endpoint requires, by method and path.
    """
    described = _document(serving, prefix)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            _state_scopes(operation, guards[method.upper(), path])
    return described


def _state_scopes(operation: dict[str, Any], guard: Guard) -> None:
    """Describe the scopes that an operation accepts; any one of them is enough."""
    if guard is None:
        operation["security"] = []
    elif not guard.issuperset(SCOPES):
        named = ["operator"] if PROMOTE in guard else [each for each in SCOPES if each in guard]
        operation["security"] = [{"token": [scope]} for scope in named]
        text = "An operator's token." if PROMOTE in guard else f"Scope: {' or '.join(named)}."
        operation["description"] = " ".join(filter(None, (operation.get("description"), text)))


def _document(serving: LoadedModel, prefix: str) -> dict[str, Any]:
    definition = serving.bundle.definition
    loan = json_schema(definition, serving.checks.known)
    decided = decisions.paths(_responses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PeerLoan Risk",
            "version": __version__,
            "description": f"Model {definition.model}, version {serving.bundle.version}.",
        },
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "paths": {
            **decided,
            "/v1/predictions": {
                "post": _predict(example(definition)),
                **decided["/v1/predictions"],
            },
            **outcomes.paths(_responses),
            **monitoring.paths(_responses),
            **models.paths(_responses, serving.bundle.version),
            "/healthz": {
                "get": _health("The process answers and could load its champion.", _liveness())
            },
            "/readyz": {"get": _health("A verified champion is loaded.", _readiness())},
            "/metrics": {"get": _metrics()},
            "/openapi.json": {"get": _itself()},
            **inference_protocol.paths(serving),
        },
        "security": [{"token": []}],
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "By `peerloan token new NAME`, which has every scope, or with "
                    "`--scope SCOPE`; not asked for on loopback until there is one.",
                }
            },
            "schemas": {
                "Loan": loan,
                "Columns": _columns(loan),
                "Prediction": _prediction(),
                "Predictions": _predictions(),
                "Decision": decisions.schema(_prediction()),
                **outcomes.schemas(definition),
                **monitoring.schemas(),
                **models.schemas(),
                "Problem": _problem(),
                **inference_protocol.schemas(loan["properties"]),
            },
        },
    }


def _predict(loan: dict[str, Any] | None) -> dict[str, Any]:
    loans = {"type": "array", "items": ref("Loan"), "maxItems": MAX_LOANS}
    body = {"oneOf": [ref("Loan"), loans, ref("Columns")]}
    content = _content("json", body)
    if loan is not None:
        shapes = {
            "a loan": loan,
            "a list": [loan],
            "columns": {name: [loan[name]] for name in loan},
        }
        examples = {shape: {"value": value} for shape, value in shapes.items()}
        content["application/json"]["examples"] = examples
    answer = {"oneOf": [ref("Prediction"), ref("Predictions")]}
    responses = _responses(
        "One prediction, or all of them in order.",
        answer,
        decisions.POSTED
        | decisions.KEPT
        | {
            "400": "The body holds no loans, or a parameter or header is wrong.",
            "408": "The body stopped arriving.",
            "413": "Over 10,000 loans or 5 MB, or one loan of over 64,000 bytes.",
            "415": decisions.WRONG_TYPE,
            "422": "Wrong values, every wrong field named; or the Idempotency-Key is another "
            "request's.",
            "503": "No model version is being served, or decisions can't be kept now.",
        },
    )
    responses["200"]["headers"] = decisions.REPLAYED
    return {
        "operationId": "predict",
        "tags": ["predictions"],
        "summary": "How likely each loan's holder is to be late in the next quarter, and why",
        "parameters": [
            _parameter("contributions", ["all", "none"], "none", "Each feature's contribution."),
            _parameter("reasons", ["all", "none"], "all", "Whether reasons are given."),
            _parameter("what_if", ["true", "false"], "false", "Scored alike, but no decision."),
            decisions.KEY_HEADER,
        ],
        "requestBody": {"required": True, "content": content},
        "responses": responses,
    }


def _responses(
    description: str, schema: dict[str, Any], problems: dict[str, str]
) -> dict[str, Any]:
    """Describe the responses: 200, and problems by their status."""
    answers = {"200": {"description": description, "content": _content("json", schema)}}
    content = _content("problem+json", ref("Problem"))
    for status in sorted(_OF_ALL | problems):
        said = [each[status] for each in (problems, _OF_ALL) if status in each]
        answers[status] = {"description": " ".join(said), "content": content}
    return answers


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {f"application/{kind}": {"schema": schema}}


def _parameter(name: str, values: list[str], default: str, text: str) -> dict[str, Any]:
    schema = {"type": "string", "enum": values, "default": default}
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _health(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    answer = {"content": _content("json", schema)}
    return {
        "summary": text,
        "tags": ["health"],
        "responses": {
            "200": {"description": "Yes."} | answer,
            "503": {"description": "No."} | answer,
        },
    }


def _liveness() -> dict[str, Any]:
    libraries = {
        "type": "array",
        "items": {"type": "string"},
        "description": "Libraries of another version than the tested ones, of which the public "
        "interface alone is used: slower.",
    }
    properties = {"status": {"enum": ["ok", "unhealthy"]}, "untested_libraries": libraries}
    return {"type": "object", "properties": properties, "required": ["status"]}


def _readiness() -> dict[str, Any]:
    text = {"type": "string"}
    model = {"version": text, "digest": text}
    properties = {
        "status": {"enum": ["ready", "waiting for a champion", "champion refused"]},
        "model": {"type": "object", "properties": model, "required": list(model)},
        "refused": text | {"description": "Why a newer champion does not serve, or none does."},
        "remedy": text | {"description": "What to do where none serves."},
        "challenger_refused": text | {"description": "Why the challenger is not in shadow."},
        "not_followed": text | {"description": "Since when the store could not be read."},
        "ledger": {"enum": ["available", "unavailable"]},
        "clock": text | {"description": "How far decisions are dated ahead of a clock set back."},
    }
    return {"type": "object", "properties": properties, "required": ["status", "ledger"]}


def _metrics() -> dict[str, Any]:
    responses = _responses("The figures.", {}, {})
    responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "Figures of all workers together, in Prometheus's text format",
        "tags": ["health"],
        "responses": responses,
    }


def _itself() -> dict[str, Any]:
    responses = _responses(
        "The description.", {"type": "object"}, {"503": "No model version is being served."}
    )
    responses["200"]["headers"] = {"ETag": {"schema": {"type": "string"}}}
    responses["304"] = {"description": "It is as `If-None-Match` says."}
    return {
        "operationId": "description",
        "summary": "This description, for the champion that serves now",
        "tags": ["health"],
        "responses": responses,
    }


def _columns(loan: dict[str, Any]) -> dict[str, Any]:
    return loan | {
        "title": "Columns",
        "description": "Loans by column: every list has the same length.",
        "properties": {
            name: {"type": "array", "items": _without_example(schema), "maxItems": MAX_LOANS}
            for name, schema in loan["properties"].items()
        },
    }


def _without_example(schema: dict[str, Any]) -> dict[str, Any]:
    # Examples of single columns would be combined to lists of different lengths.
    return {key: value for key, value in schema.items() if key not in ("default", "examples")}


def _prediction() -> dict[str, Any]:
    reason = {
        "type": "object",
        "properties": {
            "feature": {"type": "string"},
            "value": {"type": ["number", "string", "null"]},
            "contribution": {"type": "number", "description": "In log-odds, above 0."},
            "sentence": {"type": "string"},
        },
        "required": ["feature", "value", "contribution", "sentence"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "what_if": {"type": "boolean", "description": "True, where it is no decision."},
            "loan_id": {"type": "string"},
            "probability": {"type": "number", "minimum": 0, "maximum": 1},
            "late": {"type": "boolean"},
            "threshold": {"type": "number"},
            "band": {"enum": list(BANDS)},
            "reasons": {"type": ["array", "null"], "maxItems": 4, "items": reason},
            "margin": {"type": "number"},
            "base": {"type": "number"},
            "contributions": {
                "type": ["object", "null"],
                "additionalProperties": {"type": "number"},
            },
            "model": {
                "type": "object",
                "properties": {"version": {"type": "string"}, "digest": {"type": "string"}},
                "required": ["version", "digest"],
            },
            "warnings": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["probability", "late", "threshold", "band", "model", "warnings"],
        "additionalProperties": False,
    }


def _predictions() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": ref("Prediction")},
            "reasons_limit": {
                "type": "object",
                "description": "Set where a time limit holds: loans beyond it have no reasons.",
                "properties": {
                    "seconds": {"type": "number"},
                    "loans_with_reasons": {"type": "integer"},
                },
            },
        },
        "required": ["predictions"],
        "additionalProperties": False,
    }


def _problem() -> dict[str, Any]:
    error = {
        "type": "object",
        "properties": {
            "loan": {"type": ["integer", "null"]},
            "field": {"type": "string"},
            "expected": {"type": "string"},
            "given": {"type": "string"},
        },
        "required": ["loan", "field", "expected", "given"],
    }
    return {
        "type": "object",
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "errors": {"type": "array", "items": error},
            "reasons": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Of a promotion: why loans that are valid today would be refused.",
            },
        },
        "required": ["type", "title", "status", "detail"],
    }
