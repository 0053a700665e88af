"""The OpenAPI description of outcomes."""

from __future__ import annotations

from typing import Any, get_args

from peerloan.formatting import PLAIN_LETTER
from peerloan.ledger.outcome_parsing import OutcomeParser
from peerloan.ledger.outcomes import Status
from peerloan.loan import Definition
from peerloan.loan.labels import expected_label
from peerloan.loan.text import MAX_TEXT
from peerloan.web.api.openapi.decisions import POSTED, WRONG_TYPE, ref
from peerloan.web.http.limits import MAX_OUTCOMES


def paths(responses: Any) -> dict[str, Any]:
    """Describe the path of outcomes; `responses` makes the description of a route's responses."""
    return {
        "/v1/outcomes": {
            "post": {
                "operationId": "outcomes",
                "tags": ["outcomes"],
                "summary": "Report outcomes of loans, by decision or by loan and day",
                "description": "Each outcome gets a separate result, in order. If one is invalid, "
                "the others are stored all the same. To report the same outcome again changes "
                "nothing, so no Idempotency-Key is needed. To report another outcome of the same "
                "loan corrects the first one.",
                "requestBody": {"required": True, "content": _json(ref("Outcomes"))},
                "responses": responses(
                    "The result of each outcome, and how many had each status.",
                    ref("Recorded"),
                    POSTED
                    | {
                        "400": "The body is not JSON, or the request has query parameters.",
                        "408": "The body did not arrive in time.",
                        "413": f"More than {MAX_OUTCOMES:,} outcomes or 5 MB.",
                        "415": WRONG_TYPE,
                        "422": "The body has no list of outcomes.",
                        "503": "No model version is being served, or the ledger is unavailable. "
                        "No outcome was stored.",
                    },
                ),
            }
        }
    }


def schemas(definition: Definition) -> dict[str, Any]:
    """Make the schemas of a request and its response, for the current champion's definition."""
    parser = OutcomeParser(definition)
    text = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "pattern": f"^{PLAIN_LETTER}+$",
    }
    loan_id = {
        "description": "Your name for the loan; send it with `date` instead of `id`.",
        "anyOf": [text, {"type": "integer"}, {"type": "null"}],
    }
    members: dict[str, Any] = {
        "id": {
            "type": ["string", "null"],
            "format": "uuid",
            "description": "The decision's id.",
        },
        **dict.fromkeys(parser.loan_names, loan_id),
        "date": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The day on which the outcome was observed, in UTC.",
        },
    }
    for name, label in parser.labels.items():
        values = [label.late, label.on_time, *([1, 0] if name == "late" else [])]
        members[name] = {"description": f"{expected_label(label)}.", "anyOf": _any_of(values)}
    outcome = {"type": "object", "properties": members, "additionalProperties": False}
    listed = {"type": "array", "items": ref("Outcome"), "maxItems": MAX_OUTCOMES}
    return {
        "Outcome": outcome,
        "Outcomes": _object({"outcomes": listed}),
        "Recorded": _object(
            {"outcomes": {"type": "array", "items": ref("RecordedOutcome")}}
            | {name: {"type": "integer"} for name in (*get_args(Status), "refused")}
        ),
        "RecordedOutcome": {
            "description": "The stored outcome, or `errors` with everything that is wrong.",
            "type": "object",
            "properties": {
                "id": {
                    "type": "string",
                    "format": "uuid",
                    "description": "The decision's id.",
                },
                "late": {"type": "boolean"},
                "status": {"enum": list(get_args(Status))},
                "note": {
                    "type": "string",
                    "description": "Only if the outcome was reported too early to count.",
                },
                "errors": {
                    "type": "array",
                    "items": _object(
                        {name: {"type": "string"} for name in ("field", "expected", "given")}
                    ),
                },
            },
            "additionalProperties": False,
        },
    }


def _any_of(values: list[Any]) -> list[dict[str, Any]]:
    """Describe a value that is one of these or null.

    Client generators support enumerations of integers or of strings, but not mixed ones.
    """
    schemas: list[dict[str, Any]] = [{"type": "null"}]
    for name, kind in (("boolean", bool), ("integer", int), ("number", float), ("string", str)):
        if of_kind := [value for value in values if type(value) is kind]:
            schemas.append({"type": name} | ({"enum": of_kind} if kind in (int, str) else {}))
    return schemas


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
