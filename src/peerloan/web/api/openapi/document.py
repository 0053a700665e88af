"""The OpenAPI 3.1 document, made from the loan definition that validates requests."""

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
_TOKEN_PROBLEMS = {
    "401": "The request has no token, or an unknown one.",
    "403": "The token does not have a required scope.",
    "503": "The tokens can't be read.",
}


def document(
    serving: LoadedModel, guards: Mapping[tuple[str, str], Guard], prefix: str = ""
) -> dict[str, Any]:
    """Make the OpenAPI document for the current champion.

    `guards` are the scopes that each endpoint requires, by method and path. `prefix` is the path
    prefix of the service.
    """
    described = _document(serving, prefix)
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            _add_scopes(operation, guards[method.upper(), path])
    return described


def _add_scopes(operation: dict[str, Any], guard: Guard) -> None:
    """Add the scopes that an operation accepts; a token needs one of them."""
    if guard is None:
        operation["security"] = []
    elif not guard.issuperset(SCOPES):
        scopes = ["operator"] if PROMOTE in guard else [each for each in SCOPES if each in guard]
        operation["security"] = [{"token": [scope]} for scope in scopes]
        text = "An operator's token is required." if PROMOTE in guard else ""
        text = text or f"Required scope: {' or '.join(scopes)}."
        operation["description"] = " ".join(filter(None, (operation.get("description"), text)))


def _document(serving: LoadedModel, prefix: str) -> dict[str, Any]:
    definition = serving.bundle.definition
    loan = json_schema(definition, serving.checks.known)
    decision_paths = decisions.paths(_responses)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "PeerLoan Risk",
            "version": __version__,
            "description": f"Model {definition.model}, version {serving.bundle.version}.",
        },
        **({"servers": [{"url": prefix}]} if prefix else {}),
        "paths": {
            **decision_paths,
            "/v1/predictions": {
                "post": _predict(example(definition), definition.question_text),
                **decision_paths["/v1/predictions"],
            },
            **outcomes.paths(_responses),
            **monitoring.paths(_responses),
            **models.paths(_responses, serving.bundle.version),
            "/healthz": {
                "get": _health("Is the process healthy: could it load its champion?", _liveness())
            },
            "/readyz": {
                "get": _health("Is the process ready: is a verified champion loaded?", _readiness())
            },
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
                    "description": "Make a token with `peerloan token new NAME`; add `--scope "
                    "SCOPE` to limit it. Callers on the same machine need none until the first one "
                    "is made.",
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


def _predict(loan: dict[str, Any] | None, question: str) -> dict[str, Any]:
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
        "One prediction, or a list of predictions in the order of the loans.",
        answer,
        decisions.POSTED
        | decisions.STORED
        | {
            "400": "The body has no loans, or a parameter or header is wrong.",
            "408": "The body did not arrive in time.",
            "413": "More than 10,000 loans or 5 MB, or a loan of more than 64,000 bytes.",
            "415": decisions.WRONG_TYPE,
            "422": "Wrong values; `errors` has each wrong field. Or the Idempotency-Key belongs to "
            "another request.",
            "503": "No model version is being served, or the ledger is unavailable.",
        },
    )
    responses["200"]["headers"] = decisions.REPLAYED
    return {
        "operationId": "predict",
        "tags": ["predictions"],
        "summary": "Predict how likely each loan is to be late, with reasons",
        "description": f"The question that a prediction answers: {question}",
        "parameters": [
            _parameter(
                "contributions",
                ["all", "none"],
                "none",
                "Whether to return contributions.",
            ),
            _parameter("reasons", ["all", "none"], "all", "Whether to return reasons."),
            _parameter(
                "what_if",
                ["true", "false"],
                "false",
                "Predict, but store no decision.",
            ),
            _parameter(
                "flips",
                ["true", "false"],
                "false",
                "Whether to return the values of single fields that would change the decision. "
                "Only for one loan, and with `what_if=true`.",
            ),
            _parameter(
                "lenient",
                ["true", "false"],
                "false",
                "Read values as people write them: `12,000`, `$65,000`, `13.06%`, `0,4`, ` b `, "
                "numbers in quotes, `NaN`. Each prediction then has `understood`. The schema of a "
                "loan has the values as they are read.",
            ),
            decisions.KEY_HEADER,
        ],
        "requestBody": {"required": True, "content": content},
        "responses": responses,
    }


def _responses(
    description: str, schema: dict[str, Any], problems: dict[str, str]
) -> dict[str, Any]:
    """Describe the responses of a route: 200, and problems by status."""
    answers = {"200": {"description": description, "content": _content("json", schema)}}
    content = _content("problem+json", ref("Problem"))
    for status in sorted(_TOKEN_PROBLEMS | problems):
        texts = [each[status] for each in (problems, _TOKEN_PROBLEMS) if status in each]
        answers[status] = {"description": " ".join(texts), "content": content}
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
        "description": "Libraries whose installed version was not tested. Only their public "
        "interface is used, which is slower.",
    }
    properties = {"status": {"enum": ["ok", "unhealthy"]}, "untested_libraries": libraries}
    return {"type": "object", "properties": properties, "required": ["status"]}


def _readiness() -> dict[str, Any]:
    text = {"type": "string"}
    model = {"version": text, "digest": text}
    properties = {
        "status": {"enum": ["ready", "waiting for a champion", "champion refused"]},
        "model": {"type": "object", "properties": model, "required": list(model)},
        "refused": text | {"description": "Why the store's champion is not served."},
        "remedy": text | {"description": "What to do if no version is served."},
        "challenger_refused": text | {"description": "Why the challenger is not loaded."},
        "not_followed": text | {"description": "For how long the store could not be read."},
        "ledger": {"enum": ["available", "unavailable"]},
        "clock": text | {"description": "Only if the clock was set back: by how much."},
    }
    return {"type": "object", "properties": properties, "required": ["status", "ledger"]}


def _metrics() -> dict[str, Any]:
    responses = _responses("The metrics in Prometheus's text format.", {}, {})
    responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "operationId": "metrics",
        "summary": "Figures of all workers together, in Prometheus's text format",
        "tags": ["health"],
        "responses": responses,
    }


def _itself() -> dict[str, Any]:
    responses = _responses(
        "The OpenAPI document.", {"type": "object"}, {"503": "No model version is being served."}
    )
    responses["200"]["headers"] = {"ETag": {"schema": {"type": "string"}}}
    responses["304"] = {"description": "The document has the ETag in `If-None-Match`."}
    return {
        "operationId": "description",
        "summary": "Get this OpenAPI document, for the current champion",
        "tags": ["health"],
        "responses": responses,
    }


def _columns(loan: dict[str, Any]) -> dict[str, Any]:
    return loan | {
        "title": "Columns",
        "description": "Loans in columns; all lists have the same length.",
        "properties": {
            name: {"type": "array", "items": _without_example(schema), "maxItems": MAX_LOANS}
            for name, schema in loan["properties"].items()
        },
    }


def _without_example(schema: dict[str, Any]) -> dict[str, Any]:
    # Tools combine the examples of columns, and so would make lists of different lengths.
    return {key: value for key, value in schema.items() if key not in ("default", "examples")}


def _prediction() -> dict[str, Any]:
    reason = {
        "type": "object",
        "properties": {
            "feature": {"type": "string"},
            "value": {"type": ["number", "string", "null"]},
            "contribution": {"type": "number", "description": "In log-odds, greater than 0."},
            "sentence": {"type": "string"},
        },
        "required": ["feature", "value", "contribution", "sentence"],
    }
    question = {
        "type": "object",
        "properties": {
            "code": {"enum": ["unit-suspected", "out_of_range"]},
            "field": {"type": "string"},
            "text": {"type": "string"},
            "suggestion": {
                "type": ["number", "null"],
                "description": "The value that may be meant; null if no unit explains the value.",
            },
        },
        "required": ["code", "field", "text", "suggestion"],
    }
    return {
        "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "what_if": {"type": "boolean", "description": "True if no decision was stored."},
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
            "flips": {
                "type": "array",
                "description": "Fields that borrowers can change come first.",
                "items": _flip(),
            },
            "model": {
                "type": "object",
                "properties": {"version": {"type": "string"}, "digest": {"type": "string"}},
                "required": ["version", "digest"],
            },
            "warnings": {"type": "array", "items": {"type": "string"}},
            "questions": {
                "type": "array",
                "description": "Implausible values to check first. Absent if there are "
                "none, and in stored decisions.",
                "items": question,
            },
            "understood": _understood(),
        },
        "required": ["probability", "late", "threshold", "band", "model", "warnings"],
        "additionalProperties": False,
    }


def _flip() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "A value of one field with which the decision would be the other one: "
        "either `value` or `level`.",
        "properties": {
            "field": {"type": "string"},
            "value": {
                "type": ["number", "null"],
                "description": "The nearest number in its direction; null: a missing value.",
            },
            "level": {"type": "string"},
            "direction": {
                "enum": ["up", "down"],
                "description": "Only if both this value and the loan's are numbers.",
            },
            "probability": {"type": "number", "minimum": 0, "maximum": 1},
            "late": {"type": "boolean"},
            "changeable": {
                "type": "boolean",
                "description": "Whether borrowers can change the field by themselves.",
            },
            "found_by": {
                "enum": ["search"],
                "description": "Only if some values were tried, so that there may be nearer ones.",
            },
        },
        "required": ["field", "probability", "late", "changeable"],
        "additionalProperties": False,
    }


def _understood() -> dict[str, Any]:
    properties = {
        "field": {"type": "string"},
        "given": {"type": "string", "description": "The text of the value or name as it was sent."},
        "read_as": {"type": ["number", "string", "null"]},
    }
    return {
        "type": "array",
        "description": "Only with `lenient`: each value or name that was read in another spelling.",
        "items": {"type": "object", "properties": properties, "required": list(properties)},
    }


def _predictions() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": ref("Prediction")},
            "reasons_limit": {
                "type": "object",
                "description": "Only if the time limit for reasons applies; later loans have none.",
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
                "description": "Only for a promotion: why valid loans of today would be refused.",
            },
        },
        "required": ["type", "title", "status", "detail"],
    }
