"""The Open Inference Protocol, version 2, over HTTP, for standard clients.

The decisions are those of the REST API. Each field of a loan is a tensor with one value for each
loan, and so is each output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, request

from peerloan import __version__
from peerloan.formatting import show_value
from peerloan.loan import Definition, Field, Problem
from peerloan.loan.spelling import Spelling
from peerloan.web.api import tensors
from peerloan.web.api.tensors import HEADER_LENGTH, OUTPUTS, Column, Output, TensorError
from peerloan.web.auth.endpoint_scopes import public, require_scopes
from peerloan.web.http.json_errors import refuse_binary
from peerloan.web.http.limits import MAX_BODY_BYTES
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.query_parameters import refuse_parameters
from peerloan.web.http.request_body import read_body
from peerloan.web.http.responses import as_json
from peerloan.web.prediction.commit import Submission
from peerloan.web.prediction.loan_parsing import parse_columns
from peerloan.web.prediction.predict import ResponseOptions, answer_many
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.services import require_champion, services

blueprint = Blueprint("protocol", __name__)
_MAX_WARNINGS = 10


@blueprint.get("/v2/health/live")
@public
def live() -> Response:
    """Return whether this process is healthy (see `health.healthz`)."""
    if services().serving_models.unhealthy:
        raise RequestError(503, "Unhealthy", "the champion was refused; the log has the reason")
    return as_json({"live": True})


@blueprint.get("/v2/health/ready")
@public
def ready() -> Response:
    """Return whether a verified champion is loaded."""
    require_champion()
    return as_json({"ready": True})


@blueprint.get("/v2", strict_slashes=False)
@require_scopes("predict")
def server() -> Response:
    """Return the server's name, version and protocol extensions."""
    extensions = ["binary_tensor_data"]
    return as_json({"name": "peerloan", "version": __version__, "extensions": extensions})


@blueprint.get("/v2/models/<model>")
@blueprint.get("/v2/models/<model>/versions/<version>")
@require_scopes("predict")
def metadata(model: str, version: str | None = None) -> Response:
    """Return the inputs and outputs of a version, by default of the champion."""
    bundle = _requested_version(model, version).bundle
    described: dict[str, Any] = {
        "name": model,
        "versions": list(_served_versions()),
        "platform": f"peerloan_{bundle.manifest.kind}",
        "inputs": [_field_tensor(field) for field in bundle.definition.fields],
        "outputs": [_tensor(name, datatype) for name, datatype in OUTPUTS.items()],
    }
    if bundle.warnings:
        described["parameters"] = {"warnings": "; ".join(map(str, bundle.warnings))}
    return as_json(described)


@blueprint.get("/v2/models/<model>/ready")
@blueprint.get("/v2/models/<model>/versions/<version>/ready")
@require_scopes("predict")
def model_ready(model: str, version: str | None = None) -> Response:
    """Return whether a version, by default the champion, is loaded."""
    _requested_version(model, version)
    return as_json({"name": model, "ready": True})


@blueprint.post("/v2/models/<model>/infer")
@blueprint.post("/v2/models/<model>/versions/<version>/infer")
@require_scopes("predict")
def infer(model: str, version: str | None = None) -> Response:
    """Decide on the loans whose fields are the request's inputs."""
    loaded = _requested_version(model, version)
    refuse_parameters()  # otherwise a request with `what_if` would make a real decision
    content = read_body(request.environ, MAX_BODY_BYTES)
    length = _header_length(content)
    try:
        parsed = tensors.parse(content[:length])
        columns = tensors.columns(parsed, content[length:])
    except TensorError as error:
        refuse_binary(content)
        raise RequestError(400, "Not The Protocol", str(error)) from None
    outputs = _requested_outputs(parsed)
    _refuse_datatypes(loaded.bundle.definition, columns)
    values = {name: column.values for name, column in columns.items()}
    loans, inputs = parse_columns(loaded, values)
    options = ResponseOptions(reasons="reasons" in outputs)
    answer = answer_many(loaded, loans, options)
    shared = services()
    on_committed = shared.shadow.commit_callback(answer, inputs)

    def render(body: dict[str, Any]) -> Response:
        return _response(model, loaded.bundle.version, parsed, outputs, body)

    submission = Submission("protocol", inputs, content, options)
    return shared.committer.respond(answer, submission, render, on_committed)


def _response(
    model: str,
    version: str,
    inference: tensors.InferRequest,
    outputs: Mapping[str, bool],
    body: Mapping[str, Any],
) -> Response:
    """Convert the body of an answer to tensors; `outputs` is whether each one is in binary form."""
    predictions = body["predictions"]
    if predictions:  # the first answer of a repeated request may be of another version
        version = predictions[0]["model"]["version"]
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if inference.id is not None:
        head["id"] = inference.id
    if parameters := _parameters(inference, body):
        head["parameters"] = parameters
    values = {name: _output(name, predictions) for name in outputs}
    binary = [name for name, is_binary in outputs.items() if is_binary]
    content, json_length = tensors.encode(head, values, binary)
    if json_length is None:
        return Response(content, content_type="application/json")
    headers = {HEADER_LENGTH: str(json_length)}
    return Response(content, headers=headers, content_type="application/octet-stream")


def _served_versions() -> dict[str, LoadedModel]:
    """Return the loaded models by version, the champion first. Raises RequestError if none is."""
    current, challenger = require_champion(), services().serving_models.challenger
    served = {current.bundle.version: current}
    if challenger is not None:
        served.setdefault(challenger.bundle.version, challenger)
    return served


def _requested_version(model: str, version: str | None) -> LoadedModel:
    """Return the model that a request names. Raises RequestError 404 if it is not loaded."""
    served = _served_versions()
    current = next(iter(served.values()))
    name = current.bundle.definition.model
    if model != name:
        detail = f"expected the model {name}, given {show_value(model)}"
        raise RequestError(404, "No Such Model", detail)
    if version is None:
        return current
    if version not in served:
        detail = f"expected a version that is being served, {' or '.join(served)}"
        detail += f", given {show_value(version)}"
        raise RequestError(404, "No Such Version", detail)
    return served[version]


def _header_length(content: bytes) -> int:
    """Return the length of a body's JSON part, in bytes. Raises RequestError 400."""
    header = request.headers.get(HEADER_LENGTH)
    if header is None:
        return len(content)
    is_number = header.isascii() and header.isdigit() and len(header) <= 10
    if not is_number or int(header) > len(content):
        expected = f"{HEADER_LENGTH}: expected a number of bytes, at most the body's"
        detail = f"{expected} {len(content):,}, given {show_value(header)}"
        raise RequestError(400, "Wrong Header", detail)
    return int(header)


def _requested_outputs(inference: tensors.InferRequest) -> dict[str, bool]:
    """Return the requested outputs, and whether each is in binary form. Raises RequestError 400."""
    default = inference.parameters.binary_data_output
    if not inference.outputs:
        return dict.fromkeys(OUTPUTS, default)
    outputs: dict[str, bool] = {}
    for output in inference.outputs:
        if output.name not in OUTPUTS or output.name in outputs:
            expected = f"expected each of {', '.join(OUTPUTS)} at most once"
            detail = f"outputs: {expected}, given {show_value(output.name)}"
            raise RequestError(400, "Wrong Outputs", detail)
        is_binary = output.parameters.binary_data
        outputs[output.name] = default if is_binary is None else is_binary
    return outputs


def _refuse_datatypes(definition: Definition, columns: Mapping[str, Column]) -> None:
    """Raise RequestError 400 if the datatype of an input does not fit its field."""
    problems = []
    for field in definition.fields:
        column = columns.get(field.name)
        if column is None or column.datatype is None:
            continue
        fits = (
            column.datatype not in ("BYTES", "BOOL")
            if field.is_number
            else column.datatype == "BYTES" or _are_levels(field, column.values)
        )
        # Clients send a data frame's column without any values as numbers.
        if not fits and any(value is not None for value in column.values):
            expected = f"{'FP64 or INT64' if field.is_number else 'BYTES'}: {field.expected}"
            problems.append(Problem(None, field.name, expected, column.datatype))
    if problems:
        raise RequestError(400, "Wrong Datatypes", sentence(problems), problems)


def _are_levels(field: Field, values: Sequence[Any]) -> bool:
    """Whether numbers or booleans are levels of a category."""
    spelling = Spelling.of(field)
    distinct = {value for value in values if value is not None}
    return all(spelling.typed(value) is not None for value in distinct)


def _parameters(inference: tensors.InferRequest, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response's parameters. The protocol has no lists there, so texts are joined."""
    parameters: dict[str, Any] = {}
    if inference.parameters.content_type == "pd":
        parameters["content_type"] = "pd"
    warnings = dict.fromkeys(w for each in body["predictions"] for w in each["warnings"])
    if warnings:
        shown = list(warnings)[:_MAX_WARNINGS]
        if len(warnings) > len(shown):
            shown.append(f"and {len(warnings) - len(shown):,} more")
        parameters["warnings"] = "; ".join(shown)
    if limit := body.get("reasons_limit"):
        parameters["loans_with_reasons"] = limit["loans_with_reasons"]
    return parameters


def _output(name: str, predictions: Sequence[Mapping[str, Any]]) -> Output:
    values: list[Any] = [prediction[name] for prediction in predictions]
    if name == "reasons":
        values = [msgspec.json.encode(reasons).decode() for reasons in values]
    return Output(OUTPUTS[name], values)


def _field_tensor(field: Field) -> dict[str, Any]:
    return _tensor(
        field.name, tensors.input_datatype(field), expected=field.expected, optional=field.missing
    )


def _tensor(name: str, datatype: str, **more: Any) -> dict[str, Any]:
    parameters = {"content_type": tensors.content_type(datatype), **more}
    return {"name": name, "datatype": datatype, "shape": [-1, 1], "parameters": parameters}
