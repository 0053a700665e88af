"""The Open Inference Protocol's paths in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from peerloan.loan import Definition
from peerloan.loan.json_schema import example
from peerloan.web.api.openapi.decisions import KEY_HEADER, POSTED, REPLAYED, STORED
from peerloan.web.api.tensors import DATATYPES, HEADER_LENGTH, OUTPUTS, input_datatype
from peerloan.web.prediction.serving_models import LoadedModel

_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_JSON = "application/json"
_TAG = "Open Inference Protocol"
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_LENGTH = {
    "schema": {"type": "integer", "minimum": 0},
    "description": "The bytes of the JSON part.",
}


def paths(serving: LoadedModel) -> dict[str, Any]:
    """Describe the protocol's paths, for the current champion."""
    definition = serving.bundle.definition
    model = {"name": "model", "in": "path", "required": True}
    model["schema"] = {"enum": [definition.model]}
    version = {"name": "version", "in": "path", "required": True}
    version |= {"schema": {"type": "string"}, "example": serving.bundle.version}
    of_model = "/v2/models/{model}"
    described: dict[str, Any] = {
        "/v2/health/live": {"get": _get("Is the process healthy?", "Live", {}, [503])},
        "/v2/health/ready": {"get": _get("Is a champion loaded?", "Ready", {}, [503])},
        "/v2": {"get": _get("Get the name and version", "InferServer", {}, [401, 403, 503])},
    }
    for path, parameters in (
        (of_model, [model]),
        (of_model + "/versions/{version}", [model, version]),
    ):
        shared = {"parameters": parameters}
        failures = [401, 403, 404, 503]
        described[path] = {"get": _get("Get inputs and outputs", "InferModel", shared, failures)}
        described[f"{path}/ready"] = {"get": _get("Is it served?", "Ready", shared, failures)}
        described[f"{path}/infer"] = {"post": _infer(definition, parameters)}
    return described


def schemas(inputs: Iterable[str]) -> dict[str, Any]:
    """Make the schemas that the paths refer to. `inputs` are the names that inputs may have."""
    return {
        "Live": _object({"live": {"type": "boolean"}}, ["live"]),
        "Ready": _object({"ready": {"type": "boolean"}, "name": {"type": "string"}}, ["ready"]),
        "InferServer": _object(
            {
                "name": {"type": "string"},
                "version": {"type": "string"},
                "extensions": {"type": "array", "items": {"type": "string"}},
            },
            ["name", "version", "extensions"],
        ),
        "InferModel": _object(
            {
                "name": {"type": "string"},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": {"type": "array", "items": _tensor_metadata()},
                "outputs": {"type": "array", "items": _tensor_metadata()},
                "parameters": _PARAMETERS,
            },
            ["name", "versions", "platform", "inputs", "outputs"],
        ),
        "InferRequest": _request(list(inputs)),
        "InferResponse": _response(),
        "InferError": _object({"error": {"type": "string"}}, ["error"]),
    }


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required}


def _content(name: str) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _get(summary: str, answer: str, shared: dict[str, Any], failures: list[int]) -> dict[str, Any]:
    responses = {"200": {"description": "Yes.", "content": _content(answer)}} | _errors(failures)
    return {"summary": summary, "tags": [_TAG], "responses": responses, **shared}


_DESCRIPTIONS = {
    400: "The request is not valid in the protocol, values are wrong, or it has query parameters.",
    401: "The request has no token, or an unknown one.",
    404: "No such model, or no such version is being served.",
    408: "The body did not arrive in time.",
    413: "More than 10,000 loans or 5 MB, before or after decompression.",
    415: "The body's Content-Encoding is neither gzip nor deflate.",
    503: "No model version is being served, or the tokens can't be read.",
} | {int(status): text for status, text in (POSTED | STORED).items()}
_DESCRIPTIONS[403] += " Or the token does not have a required scope."


def _errors(statuses: list[int]) -> dict[str, Any]:
    content = {"content": _content("InferError")}
    return {str(status): {"description": _DESCRIPTIONS[status], **content} for status in statuses}


def _infer(definition: Definition, parameters: list[dict[str, Any]]) -> dict[str, Any]:
    length = {"name": HEADER_LENGTH, "in": "header", "required": False, **_LENGTH}
    content: dict[str, Any] = _content("InferRequest")
    if request := _example(definition):
        content[_JSON]["example"] = request
    return {
        "summary": "Decide on loans, with one tensor for each field",
        "tags": [_TAG],
        "parameters": [*parameters, length, KEY_HEADER],
        "requestBody": {"required": True, "content": content | _BINARY},
        "responses": {
            "200": {
                "description": "The decisions; as octet-stream if outputs are in binary form.",
                "headers": {HEADER_LENGTH: _LENGTH} | REPLAYED,
                "content": _content("InferResponse") | _BINARY,
            },
            **_errors(list(_DESCRIPTIONS)),
        },
    }


def _example(definition: Definition) -> dict[str, Any] | None:
    """Make an example request from the definition's example loan, if it has one."""
    loan = example(definition)
    if loan is None:
        return None
    inputs = []
    for field in definition.fields:
        value = loan[field.name]
        if value is not None:
            datatype = input_datatype(field)
            data = [int(value) if datatype == "INT64" else value]
            tensor = {"name": field.name, "shape": [1, 1], "datatype": datatype, "data": data}
            inputs.append(tensor)
    return {"inputs": inputs}


def _shape(dimension: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": dimension, "minItems": 1, "maxItems": 2}


def _tensor_metadata() -> dict[str, Any]:
    return _object(
        {
            "name": {"type": "string"},
            "datatype": {"enum": ["BOOL", "INT64", "FP64", "BYTES"]},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "parameters": _PARAMETERS,
        },
        ["name", "datatype", "shape"],
    )


def _optional(**kinds: str) -> dict[str, Any]:
    properties = {name: {"type": [kind, "null"]} for name, kind in kinds.items()}
    return {"type": ["object", "null"], "properties": properties}


def _request(names: list[str]) -> dict[str, Any]:
    tensor = _object(
        {
            "name": {"enum": names},
            "shape": _shape({"type": "integer", "minimum": 0}),
            "datatype": {"enum": list(DATATYPES)},
            "data": {
                "type": "array",
                "items": {},
                "description": "One value for each loan; null if it is missing.",
            },
            "parameters": _optional(content_type="string"),
        },
        ["name", "shape", "datatype", "data"],
    )
    output = _object(
        {"name": {"enum": list(OUTPUTS)}, "parameters": _optional(binary_data="boolean")}, ["name"]
    )
    return _object(
        {
            "id": {"type": ["string", "null"]},
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": output},
            "parameters": _optional(binary_data_output="boolean", content_type="string"),
        },
        ["inputs"],
    )


def _response() -> dict[str, Any]:
    output = _object(
        {
            "name": {"enum": list(OUTPUTS)},
            "datatype": {"enum": sorted(set(OUTPUTS.values()))},
            "shape": {**_shape({"type": "integer", "minimum": 0}), "minItems": 2},
            "data": {"type": "array", "items": {"type": ["number", "boolean", "string"]}},
            "parameters": _PARAMETERS,
        },
        ["name", "datatype", "shape", "data"],
    )
    return _object(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": _PARAMETERS,
            "outputs": {"type": "array", "items": output},
        },
        ["model_name", "model_version", "outputs"],
    )
