"""The Open Inference Protocol, version 2, over HTTP: the same decisions for standard clients.

Each field of a loan is a named tensor with one value for each loan, and so is each output.
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
from peerloan.web.prediction.loan_parsing import read_columns
from peerloan.web.prediction.predict import ResponseOptions, answer_many
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.services import require_champion, services

blueprint = Blueprint("protocol", __name__)
_MOST_WARNINGS = 10


@blueprint.get("/v2/health/live")
@public
def live() -> Response:
    """Return whether this process is healthy (see `health.healthz`)."""
    if services().serving_models.unhealthy:
        raise RequestError(503, "Unhealthy", "the champion was refused; the log says why")
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
    now = _requested_version(model, version)
    bundle = now.bundle
    described: dict[str, Any] = {
        "name": model,
        "versions": list(_served()),
        "platform": f"peerloan_{bundle.manifest.kind}",
        "inputs": [_described(field) for field in bundle.definition.fields],
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
    now = _requested_version(model, version)
    refuse_parameters()  # a request with `what_if` must not make a real decision
    content = read_body(request.environ, MAX_BODY_BYTES)
    length = _header_length(content)
    try:
        asked = tensors.parse(content[:length])
        columns = tensors.columns(asked, content[length:])
    except TensorError as error:
        refuse_binary(content)
        raise RequestError(400, "Not The Protocol", str(error)) from None
    wanted = _requested_outputs(asked)
    _refuse_misfits(now.bundle.definition, columns)
    values = {name: column.values for name, column in columns.items()}
    loans, inputs = read_columns(now, values)
    explained = ResponseOptions(reasons="reasons" in wanted)
    answer = answer_many(now, loans, explained)
    held = services()
    followed = held.shadow.from_environment(answer, inputs)

    def render(body: dict[str, Any]) -> Response:
        return _response(model, now.bundle.version, asked, wanted, body)

    submission = Submission("protocol", inputs, content, explained)
    return held.committer.respond(answer, submission, render, followed)


def _response(
    model: str,
    version: str,
    asked: tensors.InferRequest,
    wanted: Mapping[str, bool],
    answer: Mapping[str, Any],
) -> Response:
    """Convert an answer's predictions to tensors."""
    predictions = answer["predictions"]
    if predictions:  # a repeated request gets the first answer, perhaps of another version
        version = predictions[0]["model"]["version"]
    head: dict[str, Any] = {"model_name": model, "model_version": version}
    if asked.id is not None:
        head["id"] = asked.id
    if parameters := _parameters(asked, answer):
        head["parameters"] = parameters
    outputs = {name: _output(name, predictions) for name in wanted}
    binary = [name for name, in_binary in wanted.items() if in_binary]
    body, json_length = tensors.encode(head, outputs, binary)
    if json_length is None:
        return Response(body, content_type="application/json")
    headers = {HEADER_LENGTH: str(json_length)}
    return Response(body, headers=headers, content_type="application/octet-stream")


def _served() -> dict[str, LoadedModel]:
    """List the loaded versions, the champion first. Raises RequestError if there is none."""
    current, challenger = require_champion(), services().serving_models.challenger
    served = {current.bundle.version: current}
    if challenger is not None:
        served.setdefault(challenger.bundle.version, challenger)
    return served


def _requested_version(model: str, version: str | None) -> LoadedModel:
    """Return the version that a request names. Raises RequestError if it is not loaded."""
    served = _served()
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
    """Return the length of a body's JSON part."""
    given = request.headers.get(HEADER_LENGTH)
    if given is None:
        return len(content)
    usual = given.isascii() and given.isdigit() and len(given) <= 10
    if not usual or int(given) > len(content):
        expected = f"{HEADER_LENGTH}: expected a number of bytes, at most the body's"
        detail = f"{expected} {len(content):,}, given {show_value(given)}"
        raise RequestError(400, "Wrong Header", detail)
    return int(given)


def _requested_outputs(asked: tensors.InferRequest) -> dict[str, bool]:
    """List the requested outputs, and whether each is in binary form."""
    usual = asked.parameters.binary_data_output
    if not asked.outputs:
        return dict.fromkeys(OUTPUTS, usual)
    wanted: dict[str, bool] = {}
    for output in asked.outputs:
        if output.name not in OUTPUTS or output.name in wanted:
            expected = f"expected each of {', '.join(OUTPUTS)} once at most"
            detail = f"outputs: {expected}, given {show_value(output.name)}"
            raise RequestError(400, "Wrong Outputs", detail)
        own = output.parameters.binary_data
        wanted[output.name] = usual if own is None else own
    return wanted


def _refuse_misfits(definition: Definition, columns: Mapping[str, Column]) -> None:
    """Raise RequestError if a datatype can't hold a field's values."""
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
        # A data frame's column with only missing values is sent as numbers.
        if not fits and any(value is not None for value in column.values):
            expected = f"{'FP64 or INT64' if field.is_number else 'BYTES'}: {field.expected}"
            problems.append(Problem(None, field.name, expected, column.datatype))
    if problems:
        raise RequestError(400, "Wrong Datatypes", sentence(problems), problems)


def _are_levels(field: Field, values: Sequence[Any]) -> bool:
    """Whether numbers or booleans are levels of a category."""
    spelling = Spelling.of(field)
    different = {value for value in values if value is not None}
    return all(spelling.typed(value) is not None for value in different)


def _parameters(asked: tensors.InferRequest, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response's parameters; the protocol allows only single values."""
    parameters: dict[str, Any] = {}
    if asked.parameters.content_type == "pd":
        parameters["content_type"] = "pd"
    warnings = dict.fromkeys(w for each in answer["predictions"] for w in each["warnings"])
    if warnings:
        shown = list(warnings)[:_MOST_WARNINGS]
        if len(warnings) > len(shown):
            shown.append(f"and {len(warnings) - len(shown):,} more")
        parameters["warnings"] = "; ".join(shown)
    if limit := answer.get("reasons_limit"):
        parameters["loans_with_reasons"] = limit["loans_with_reasons"]
    return parameters


def _output(name: str, predictions: Sequence[Mapping[str, Any]]) -> Output:
    values: list[Any] = [prediction[name] for prediction in predictions]
    if name == "reasons":
        values = [msgspec.json.encode(reasons).decode() for reasons in values]
    return Output(OUTPUTS[name], values)


def _described(field: Field) -> dict[str, Any]:
    return _tensor(
        field.name, tensors.input_datatype(field), expected=field.expected, optional=field.missing
    )


def _tensor(name: str, datatype: str, **more: Any) -> dict[str, Any]:
    parameters = {"content_type": tensors.content_type(datatype), **more}
    return {"name": name, "datatype": datatype, "shape": [-1, 1], "parameters": parameters}
