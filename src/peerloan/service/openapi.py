"""The API described as OpenAPI 3.1, from the definition that validates its requests."""

from __future__ import annotations

from typing import Any

from peerloan import __version__
from peerloan.loan import json_schema
from peerloan.model import BANDS
from peerloan.service import openapi_protocol
from peerloan.service.champion import Serving


def document(serving: Serving) -> dict[str, Any]:
    """The OpenAPI document for the version that serves now."""
    definition = serving.bundle.definition
    loan = json_schema(definition, serving.checks.known)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PeerLoan Risk",
            "version": __version__,
            "description": f"Model {definition.model}, version {serving.bundle.version}.",
        },
        "paths": {
            "/v1/predictions": {"post": _predict()},
            "/v1/models": {"get": _models()},
            "/v1/models/{version}": {"get": _model()},
            "/healthz": {"get": _health("The process answers and could load its champion.")},
            "/readyz": {"get": _health("A verified champion is loaded.")},
            **openapi_protocol.paths(serving),
        },
        "components": {
            "schemas": {
                "Loan": loan,
                "Columns": _columns(loan),
                "Prediction": _prediction(),
                "Predictions": _predictions(),
                "Model": _version(),
                "Problem": _problem(),
                **openapi_protocol.schemas(loan["properties"]),
            }
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _predict() -> dict[str, Any]:
    body = {"oneOf": [_ref("Loan"), {"type": "array", "items": _ref("Loan")}, _ref("Columns")]}
    answer = {"oneOf": [_ref("Prediction"), _ref("Predictions")]}
    problem = _problem_content()
    return {
        "operationId": "predict",
        "summary": "How likely each loan's holder is to be late in the next quarter, and why",
        "parameters": [
            _parameter("contributions", ["all", "none"], "none", "Each feature's contribution."),
            _parameter("reasons", ["all", "none"], "all", "Whether reasons are given."),
            _parameter("what_if", ["true", "false"], "false", "Scored alike, but no decision."),
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {
                "description": "One prediction, or all of them in order.",
                "content": {"application/json": {"schema": answer}},
            },
            "400": {"description": "The body holds no loans, or a parameter is wrong."} | problem,
            "408": {"description": "The body stopped arriving."} | problem,
            "413": {"description": "Over 10,000 loans or 5 MB."} | problem,
            "415": {"description": "The body's type is no JSON."} | problem,
            "422": {"description": "Wrong values; every wrong field is named."} | problem,
            "503": {"description": "No model version is being served."} | problem,
        },
    }


def _models() -> dict[str, Any]:
    version = {"type": ["string", "null"]}
    change = {
        "type": "object",
        "properties": {
            "number": {"type": "integer"},
            "action": {"enum": ["promote", "challenge", "rollback"]},
            "champion": version,
            "challenger": version,
            "who": {"type": "string"},
            "when": {"type": "string"},
            "why": {"type": "string"},
        },
    }
    answer = {
        "type": "object",
        "properties": {
            "champion": version,
            "challenger": version,
            "versions": {"type": "array", "items": _ref("Model")},
            "history": {"type": "array", "items": change},
        },
        "required": ["champion", "challenger", "versions", "history"],
    }
    return {
        "operationId": "models",
        "summary": "Every version, which one serves, and how it came to be so",
        "responses": {
            "200": {
                "description": "The store's versions, oldest first.",
                "content": {"application/json": {"schema": answer}},
            },
            "503": {"description": "The store can't be read."} | _problem_content(),
        },
    }


def _model() -> dict[str, Any]:
    return {
        "operationId": "model",
        "summary": "One version, with its manifest",
        "parameters": [
            {"name": "version", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {
            "200": {
                "description": "The version.",
                "content": {"application/json": {"schema": _ref("Model")}},
            },
            "404": {"description": "No such version."} | _problem_content(),
            "409": {"description": "The version does not verify."} | _problem_content(),
        },
    }


def _version() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "version": {"type": "string"},
            "aliases": {"type": "array", "items": {"enum": ["champion", "challenger"]}},
            "digest": {"type": "string"},
            "manifest": {"type": "object", "description": "All that the bundle says of itself."},
            "candidate": {"type": "string"},
            "kind": {"enum": ["scorecard", "onnx"]},
            "created": {"type": "string"},
            "sample": {"type": "boolean", "description": "Trained on the built-in sample."},
            "metrics": {"type": "object", "additionalProperties": {"type": "number"}},
            "refused": {"type": "string", "description": "Why it can't be read."},
        },
        "required": ["version", "aliases"],
    }


def _problem_content() -> dict[str, Any]:
    return {"content": {"application/problem+json": {"schema": _ref("Problem")}}}


def _parameter(name: str, values: list[str], default: str, text: str) -> dict[str, Any]:
    schema = {"enum": values, "default": default}
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _health(text: str) -> dict[str, Any]:
    answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
    return {
        "summary": text,
        "responses": {
            "200": {"description": "Yes."} | answer,
            "503": {"description": "No."} | answer,
        },
    }


def _columns(loan: dict[str, Any]) -> dict[str, Any]:
    return loan | {
        "title": "Columns",
        "description": "Loans by column: every list has the same length.",
        "properties": {
            name: {"type": "array", "items": schema} for name, schema in loan["properties"].items()
        },
    }


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
            "what_if": {"const": True},
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
            "predictions": {"type": "array", "items": _ref("Prediction")},
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
        },
        "required": ["type", "title", "status", "detail"],
    }
