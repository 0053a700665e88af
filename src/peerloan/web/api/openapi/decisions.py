"""The OpenAPI description of decisions in the ledger."""

from __future__ import annotations

from typing import Any

from peerloan.formatting import PLAIN_LETTER
from peerloan.ledger import SOURCES
from peerloan.model import BANDS
from peerloan.web.http.limits import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from peerloan.web.http.responses import REPLAYED_HEADER

KEY_HEADER: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A repeated request with the same key within 24 hours gets the first answer "
    "again, and no second decision is made.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
# The headers of a response.
REPLAYED: dict[str, Any] = {
    REPLAYED_HEADER: {
        "description": "`true` if this is the first answer of a repeated request again. Other "
        "responses do not have this header.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
NO_PARAMETERS = "The request has query parameters."
WRONG_TYPE = "The Content-Type is not JSON, or the Content-Encoding is neither gzip nor deflate."
# Further responses of a route that changes something.
POSTED = {"403": "A page of another site made the browser send the request."}
# Further responses of a route that stores decisions.
STORED = {
    "409": "Another request with this Idempotency-Key is still running, or the decisions of the "
    "first one can't be read any more.",
    "500": "The ledger's database refused the decision, which is not stored.",
}


def paths(responses: Any) -> dict[str, Any]:
    """Describe the paths of decisions; `responses` makes the description of a route's responses."""
    listed = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": ref("Decision")},
            "next": {
                "type": ["string", "null"],
                "description": "The cursor of the next page; null on the last page.",
            },
        },
        "required": ["predictions", "next"],
    }
    problems = {"503": "The ledger is unavailable."}
    return {
        "/v1/predictions/{decision}": {
            "get": {
                "operationId": "decision",
                "tags": ["predictions"],
                "summary": "Get a stored decision",
                "parameters": [
                    {
                        "name": "decision",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string", "format": "uuid"},
                    }
                ],
                "responses": responses(
                    "The decision.",
                    ref("Decision"),
                    problems
                    | {
                        "400": NO_PARAMETERS,
                        "404": "No such decision.",
                        "410": "The decision was purged.",
                    },
                ),
            }
        },
        "/v1/predictions": {
            "get": {
                "operationId": "decisions",
                "tags": ["predictions"],
                "summary": "List stored decisions, newest first",
                "parameters": [*_filters()],
                "responses": responses(
                    "A page of decisions.", listed, problems | {"400": "A parameter is wrong."}
                ),
            }
        },
    }


def schema(prediction: dict[str, Any]) -> dict[str, Any]:
    """Describe a stored decision: the members of a prediction and further ones."""
    challenger = {
        "type": ["object", "null"],
        "description": "The challenger's score of the same loan, in shadow.",
        "properties": {"version": {"type": "string"}, "probability": {"type": "number"}},
        "required": ["version", "probability"],
    }
    outcome = {
        "late": {"type": "boolean"},
        "date": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The day observed, in UTC.",
        },
        "recorded": {"type": "string", "format": "date-time"},
        "caller": {"type": "string"},
    }
    further = {
        "time": {"type": "string", "format": "date-time"},
        "inputs": {
            "type": "object",
            "description": "The loan as it was sent, or as it was read with `lenient`.",
        },
        "source": {"enum": list(SOURCES)},
        "caller": {"type": "string"},
        "request_id": {"type": "string"},
        "idempotency_key": {"type": ["string", "null"]},
        "challenger": challenger,
        "outcomes": {
            "type": "array",
            "description": "The reported outcomes of the loan: the current one first, then the "
            "earlier ones that it corrected.",
            "items": {
                "type": "object",
                "properties": outcome,
                "required": list(outcome),
            },
        },
    }
    required = [*prediction["required"], "id", "reasons", "margin", *further]
    return prediction | {"properties": prediction["properties"] | further, "required": required}


def _filters() -> list[dict[str, Any]]:
    words = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": f"^{PLAIN_LETTER}*$"}
    # It may also be a day. The schema does not state that: JSON Schema has no format for "either".
    moment = {"type": "string", "format": "date-time"}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}
    limit["default"] = DEFAULT_PAGE_SIZE
    described = {
        "loan_id": (words, "Only decisions on this loan."),
        "since": (moment, "Only decisions from this day or time on."),
        "until": (moment, "Only decisions before this day or time."),
        "version": (words, "Only decisions by this model version."),
        "band": ({"type": "string", "enum": list(BANDS)}, "Only decisions in this band."),
        "limit": (limit, "The largest number of decisions in a page."),
        "cursor": (
            {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"},
            "The value of `next` in the page before.",
        ),
    }
    return [
        {"name": name, "in": "query", "required": False, "description": text, "schema": schema}
        for name, (schema, text) in described.items()
    ]


def ref(name: str) -> dict[str, str]:
    """Return a reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}
