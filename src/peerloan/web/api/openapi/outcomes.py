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
    """Describe the report of outcomes; `responses` makes the description of a route's responses."""
    return {
        "/v1/outcomes": {
            "post": {
                "operationId": "outcomes",
                "tags": ["outcomes"],
                "summary": "What became of loans, told of decisions or of loans and days",
                "description": "Each outcome is answered by itself, in order: what is wrong with "
                "one keeps no other from being kept. To repeat one changes nothing, so no "
                "Idempotency-Key is needed; to tell another one corrects it.",
                "requestBody": {"required": True, "content": _json(ref("Outcomes"))},
                "responses": responses(
                    "What became of each.",
                    ref("Recorded"),
                    POSTED
                    | {
                        "400": "The body is no JSON, or there are parameters.",
                        "408": "The body stopped arriving.",
                        "413": f"Over {MAX_OUTCOMES:,} outcomes or 5 MB.",
                        "415": WRONG_TYPE,
                        "422": "The body holds no list of outcomes.",
                        "503": "No model version is being served, or the ledger can't keep them "
                        "now: none of them was kept.",
                    },
                ),
            }
        }
    }


def schemas(definition: Definition) -> dict[str, Any]:
    """Make the schemas of a request and its response, for the current champion's definition."""
    reader = OutcomeParser(definition)
    text = {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "pattern": f"^{PLAIN_LETTER}+$",
    }
    loan_id = {
        "description": "Your own name for the loan, with `date` in place of `id`.",
        "anyOf": [text, {"type": "integer"}, {"type": "null"}],
    }
    members: dict[str, Any] = {
        "id": {
            "type": ["string", "null"],
            "format": "uuid",
            "description": "The decision's.",
        },
        **dict.fromkeys(reader.loan_names, loan_id),
        "date": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The day on which it was observed, in UTC.",
        },
    }
    for name, label in reader.labels.items():
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
            "description": "What was kept of it, or `errors`: all that is wrong with it.",
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid", "description": "The decision's."},
                "late": {"type": "boolean"},
                "status": {"enum": list(get_args(Status))},
                "note": {
                    "type": "string",
                    "description": "Only where the outcome was told too early to count.",
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
    """Describe one of these values or null.

    Client generators support an enumeration of integers or of strings, but not a mixed one.
    """
    chosen: list[dict[str, Any]] = [{"type": "null"}]
    for name, kind in (("boolean", bool), ("integer", int), ("number", float), ("string", str)):
        if own := [value for value in values if type(value) is kind]:
            chosen.append({"type": name} | ({"enum": own} if kind in (int, str) else {}))
    return chosen


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
