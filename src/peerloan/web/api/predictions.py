"""Predictions over HTTP: for one loan, a list of loans, or columns. Also the OpenAPI document."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, request

from peerloan.formatting import plural, show_value
from peerloan.loan import Checked, Problem
from peerloan.model import OnnxTimeLimit
from peerloan.web.api.openapi import document
from peerloan.web.auth.endpoint_scopes import by_address, require_scopes
from peerloan.web.auth.tokens import SCOPES
from peerloan.web.http import problems
from peerloan.web.http.limits import MAX_BODY_BYTES
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.request_body import read_body
from peerloan.web.http.responses import RawResponse, as_json, require_json
from peerloan.web.prediction.commit import Submission
from peerloan.web.prediction.loan_parsing import parse_loans, parse_loans_leniently
from peerloan.web.prediction.predict import (
    ResponseOptions,
    add_understood,
    answer_many,
    answer_one,
)
from peerloan.web.services import require_champion, services
from peerloan.web.telemetry import metrics

blueprint = Blueprint("api", __name__)
log = logging.getLogger(__name__)
_DEFAULT_OPTIONS = ResponseOptions()
_FLAGS = {
    "contributions": {"all": True, "none": False},
    "reasons": {"all": True, "none": False},
    "what_if": {"true": True, "false": False},
    "flips": {"true": True, "false": False},
    "lenient": {"true": True, "false": False},
}


@blueprint.app_errorhandler(OnnxTimeLimit)
def too_slow(error: OnnxTimeLimit) -> Response:
    """Answer 503 if a model has taken too long, which is not the caller's fault."""
    metrics.RUNS_GIVEN_UP.labels("request").inc()
    log.error("a model run was ended: %s", error)
    detail = f"The model took too long, and no decision was made. {error}."
    return problems.answer(
        RequestError(503, "Model Too Slow", detail, headers={"Retry-After": "5"})
    )


@blueprint.post("/v1/predictions")
@require_scopes("predict")
def predictions() -> RawResponse:
    """Decide on one loan (an object), a list of loans, or columns (an object of lists)."""
    environ = request.environ
    options = _DEFAULT_OPTIONS
    if environ.get("QUERY_STRING"):
        options = _parse_options(request.args.to_dict(flat=False))
    if environ.get("CONTENT_TYPE") != "application/json":
        require_json()
    content = read_body(environ, MAX_BODY_BYTES)
    model = require_champion()
    # A loan that is too large to store is refused in a what_if too, as it is in a decision.
    understood = None
    if options.lenient:
        loans, inputs, understood = parse_loans_leniently(model, content)
    else:
        loans, inputs = parse_loans(model, content)
    if isinstance(loans, Checked):
        answer = answer_one(model, loans, options)
    elif options.flips:
        given = f"a list of {plural(loans.loans.size, 'loan')}"
        problem = Problem(None, "?flips", "one loan, an object of its values", given)
        raise RequestError(400, "Wrong Parameters", sentence([problem]), [problem])
    else:
        answer = answer_many(model, loans, options)
    if understood is not None:
        add_understood(answer.predictions, understood)
    shared = services()
    return shared.committer.respond(
        answer,
        Submission("api", inputs, content, options),
        _render,
        shared.shadow.commit_callback(answer, inputs),
    )


def _render(body: dict[str, Any]) -> RawResponse:
    return RawResponse(msgspec.json.encode(body), "application/json")


@blueprint.get("/openapi.json")
@require_scopes(*SCOPES)
def openapi_document() -> Response:
    """Return the OpenAPI document for the current champion; the ETag changes with the document."""
    response = as_json(
        document.document(require_champion(), by_address(current_app), request.root_path)
    )
    response.add_etag()
    response.headers["Cache-Control"] = "no-cache"
    response.make_conditional(request)
    return response


def _parse_options(args: Mapping[str, list[str]]) -> ResponseOptions:
    """Parse the query parameters. Raises RequestError that names each wrong one."""
    flags = {}
    problems = []
    for name, values in args.items():
        choices = _FLAGS.get(name)
        if choices is None:
            expected = f"one of the parameters {', '.join(_FLAGS)}"
            problems.append(Problem(None, f"?{name[:50]}", expected, show_value(values[-1])))
        elif len(values) > 1 or values[0] not in choices:
            expected, given = " or ".join(choices), " and ".join(map(show_value, values[:3]))
            problems.append(Problem(None, f"?{name}", expected, given))
        else:
            flags[name] = choices[values[0]]
    what_if = flags.get("what_if", "what_if" in args)  # a wrong one is named already
    if flags.get("flips") and not what_if:
        expected, given = "what_if=true beside it", "flips=true without it"
        problems.append(Problem(None, "?flips", expected, given))
    if problems:
        raise RequestError(400, "Wrong Parameters", sentence(problems), problems)
    return ResponseOptions(**flags)
