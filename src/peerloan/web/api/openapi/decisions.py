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
    "description": "A request that is repeated with the same key within 24 hours gets the first "
    "answer again, and is no second decision.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
# The headers of a response.
REPLAYED: dict[str, Any] = {
    REPLAYED_HEADER: {
        "description": "`true` where this is the first answer again, and no second decision; the "
        "first one does not have it.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}
NO_PARAMETERS = "The address has parameters."
WRONG_TYPE = "The body is not said to be JSON, or its Content-Encoding is neither gzip nor deflate."
# Further responses of a route that changes something.
POSTED = {"403": "A page of another site made a browser send this."}
# Further responses of a route that stores decisions.
KEPT = {
    "409": "A request with this Idempotency-Key is on its way still, or its decisions can't be "
    "read any more.",
    "500": "The ledger's database refused the decision.",
}


def paths(responses: Any) -> dict[str, Any]:
    """Describe the paths of decisions; `responses` makes the description of a route's responses."""
    listed = {
        "type": "object",
        "properties": {
            "predictions": {"type": "array", "items": ref("Decision")},
            "next": {"type": ["string", "null"], "description": "The next page's cursor."},
        },
        "required": ["predictions", "next"],
    }
    problems = {"503": "The ledger can't be read now."}
    return {
        "/v1/predictions/{decision}": {
            "get": {
                "operationId": "decision",
                "tags": ["predictions"],
                "summary": "A decision that was made",
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
                    | {"400": NO_PARAMETERS, "404": "No such decision.", "410": "It was purged."},
                ),
            }
        },
        "/v1/predictions": {
            "get": {
                "operationId": "decisions",
                "tags": ["predictions"],
                "summary": "Decisions that were made, the newest first",
                "parameters": [*_filters()],
                "responses": responses(
                    "A page of decisions.", listed, problems | {"400": "A parameter is wrong."}
                ),
            }
        },
    }


def schema(prediction: dict[str, Any]) -> dict[str, Any]:
    """Describe a stored decision: the response, and what is known besides."""
    challenger = {
        "type": ["object", "null"],
        "description": "What the challenger made of it, in shadow.",
        "properties": {"version": {"type": "string"}, "probability": {"type": "number"}},
        "required": ["version", "probability"],
    }
    outcome = {
        "late": {"type": "boolean"},
        "date": {"type": ["string", "null"], "format": "date", "description": "The day observed."},
        "recorded": {"type": "string", "format": "date-time"},
        "caller": {"type": "string"},
    }
    more = {
        "time": {"type": "string", "format": "date-time"},
        "inputs": {"type": "object", "description": "The loan, as it was given."},
        "source": {"enum": list(SOURCES)},
        "caller": {"type": "string"},
        "request_id": {"type": "string"},
        "idempotency_key": {"type": ["string", "null"]},
        "challenger": challenger,
        "outcomes": {
            "type": "array",
            "description": "What became of the loan; what holds now comes first, and then what was "
            "told before.",
            "items": {
                "type": "object",
                "properties": outcome,
                "required": list(outcome),
            },
        },
    }
    required = [*prediction["required"], "id", "reasons", "margin", *more]
    return prediction | {"properties": prediction["properties"] | more, "required": required}


def _filters() -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": f"^{PLAIN_LETTER}*$"}
    # It may be a day too. This is described in words, because a schema has no format for either.
    moment = {"type": "string", "format": "date-time"}
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE_SIZE}
    limit["default"] = DEFAULT_PAGE_SIZE
    described = {
        "loan_id": (text, "Of this loan."),
        "since": (moment, "Made at this day or moment or later."),
        "until": (moment, "Made before this day or moment."),
        "version": (text, "By this model version."),
        "band": ({"type": "string", "enum": list(BANDS)}, "In this band."),
        "limit": (limit, "So many at most."),
        "cursor": ({"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}, "The page before's next."),
    }
    return [
        {"name": name, "in": "query", "required": False, "description": words, "schema": schema}
        for name, (schema, words) in described.items()
    ]


def ref(name: str) -> dict[str, str]:
    """Refer to a schema of the document by its name."""
    return {"$ref": f"#/components/schemas/{name}"}
