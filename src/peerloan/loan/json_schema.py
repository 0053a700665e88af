"""Convert a definition to JSON Schema (draft 2020-12), for OpenAPI and for client-side checks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peerloan.formatting import PLAIN_LETTER
from peerloan.loan.definition import Definition, Field, Value
from peerloan.loan.spelling import typed_levels
from peerloan.loan.text import MAX_TEXT


def json_schema(definition: Definition, known: Iterable[str] = ()) -> dict[str, Any]:
    """The schema of one loan; `known` are fields of other versions, accepted and ignored."""
    properties = {field.name: field_schema(field) for field in definition.fields}
    identifier = {
        "description": "Your id of the loan; the answer repeats it.",
        "anyOf": [_text_schema(), {"type": "integer"}, {"type": "null"}],
        "examples": ["loan-1"],
    }
    for name in dict.fromkeys(["loan_id", definition.roles.id or "loan_id"]):
        properties[name] = identifier
    for other in (definition.roles.date, definition.roles.exposure, *sorted(known)):
        if other is not None and other not in properties:
            properties[other] = {"description": "Accepted, and not used by this version."}
    return {
        "type": "object",
        "title": "Loan",
        "properties": properties,
        "required": [field.name for field in definition.fields if not field.missing],
        "additionalProperties": False,
    }


def example(definition: Definition) -> dict[str, Value] | None:
    """An example loan of the fields' defaults; None if a required field has no default."""
    loan = {field.name: field.default for field in definition.fields}
    lacking = (f for f in definition.fields if f.default is None and not f.missing)
    return None if any(lacking) else loan


def field_schema(field: Field) -> dict[str, Any]:
    """The schema of one field's value."""
    schema: dict[str, Any]
    if field.is_number:
        schema = {"type": "integer" if field.kind == "whole" else "number"}
        for key, bound in (
            ("minimum", field.min),
            ("exclusiveMinimum", field.above),
            ("maximum", field.max),
        ):
            if bound is not None:
                schema[key] = bound
    elif field.kind == "ordered":
        schema = {"enum": [*field.levels, *typed_levels(field)]}
    else:
        schema = _text_schema()
        if typed := typed_levels(field):
            schema = {"anyOf": [schema, {"enum": typed}]}
        schema["examples"] = list(field.levels)
    if field.missing:
        schema = {"anyOf": [schema, {"type": "null"}]}
    schema["title"] = field.label
    description = [field.help, f"Expected: {field.expected}."]
    schema["description"] = " ".join(text for text in description if text)
    if field.default is not None:
        schema["default"] = field.default
    return schema


def _text_schema() -> dict[str, Any]:
    return {
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_TEXT,
        "pattern": f"^{PLAIN_LETTER}+$",
    }
