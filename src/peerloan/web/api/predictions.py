"""The REST API: predictions for one loan, a list, or columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app, request

from peerloan.loan import Checked, Problem
from peerloan.loan.text import show_given
from peerloan.model import OnnxTimeLimit
from peerloan.web.api.openapi import document
from peerloan.web.auth.authentication import is_trusted
from peerloan.web.auth.endpoint_scopes import by_address, needs
from peerloan.web.auth.tokens import SCOPES
from peerloan.web.http import problems
from peerloan.web.http.lean_flask import Whole
from peerloan.web.http.problems import RequestError, sentence
from peerloan.web.http.request_body import read_body
from peerloan.web.prediction.commit import keep
from peerloan.web.prediction.loan_parsing import read
from peerloan.web.prediction.predict import Wanted, answer_many, answer_one
from peerloan.web.prediction.serving_models import Champion, Serving
from peerloan.web.prediction.shadow import Shadow
from peerloan.web.telemetry import metrics

blueprint = Blueprint("api", __name__)
log = logging.getLogger(__name__)
MAX_BODY_BYTES = 5_000_000
_USUAL = Wanted()
_FLAGS = {
    "contributions": {"all": True, "none": False},
    "reasons": {"all": True, "none": False},
    "what_if": {"true": True, "false": False},
}


def champion() -> Champion:
    """The application's champion."""
    return current_app.extensions["champion"]  # type: ignore[no-any-return]


def shadow() -> Shadow:
    """What the challenger runs in."""
    return current_app.extensions["shadow"]  # type: ignore[no-any-return]


def serving(here: Champion) -> Serving:
    """The version that answers a request; raises RequestError while there is none."""
    current = here.current
    if current is None:
        refusal = here.refusal
        why = "train and promote one"
        if refusal:  # of which versions and files, is for those alone who have a token
            detail = f": {refusal}" if is_trusted(request.environ) else "; the log says why"
            why = f"the champion was refused{detail}"
        raise RequestError(
            503,
            "No Champion",
            f"No model version is being served yet; {why}.",
            headers={"Retry-After": "2"},
        )
    return current


@blueprint.app_errorhandler(OnnxTimeLimit)
def too_slow(error: OnnxTimeLimit) -> Response:
    """A version whose estimator takes too long is not the caller's fault."""
    metrics.RUNS_GIVEN_UP.labels("request").inc()
    log.error("a request was given up: %s", error)
    detail = f"The model took too long, and nothing was decided. {error}."
    return problems.answer(
        RequestError(503, "Model Too Slow", detail, headers={"Retry-After": "5"})
    )


@blueprint.post("/v1/predictions")
@needs("predict")
def predictions() -> Whole:
    """Predict for one loan (an object), a list of loans, or columns (an object of lists)."""
    environ = request.environ
    wanted = _wanted(request.args.to_dict(flat=False)) if environ.get("QUERY_STRING") else _USUAL
    if environ.get("CONTENT_TYPE") != "application/json":
        require_json()
    content = read_body(environ, MAX_BODY_BYTES)
    now = serving(champion())
    # What can't be kept is refused in a what_if too, as the decision would be.
    loans, inputs = read(now, content)
    if isinstance(loans, Checked):
        answer = answer_one(now, loans, wanted)
    else:
        answer = answer_many(now, loans, wanted)
    return keep(answer, inputs, "api", wanted, _shape, content, shadow().following(answer, inputs))


def _shape(body: dict[str, Any]) -> Whole:
    return Whole(msgspec.json.encode(body), "application/json")


@blueprint.get("/openapi.json")
@needs(*SCOPES)
def openapi_document() -> Response:
    """This API, described for the champion that serves now; it changes with it, and so its ETag."""
    answer = as_json(
        document.document(serving(champion()), by_address(current_app), request.root_path)
    )
    answer.add_etag()
    answer.headers["Cache-Control"] = "no-cache"
    answer.make_conditional(request)
    return answer


def require_json() -> None:
    """Raise RequestError unless the body says that it is JSON."""
    if not request.is_json:
        raise RequestError(
            415,
            "Unsupported Media Type",
            "expected application/json, given "
            + (show_given(request.mimetype) if request.mimetype else "nothing")
            + "; send JSON with the header Content-Type: application/json",
        )


def _wanted(args: Mapping[str, list[str]]) -> Wanted:
    flags = {}
    problems = []
    for name, values in args.items():
        choices = _FLAGS.get(name)
        if choices is None:
            expected = f"one of the parameters {', '.join(_FLAGS)}"
            problems.append(Problem(None, f"?{name[:50]}", expected, show_given(values[-1])))
        elif len(values) > 1 or values[0] not in choices:
            expected, given = " or ".join(choices), " and ".join(map(show_given, values[:3]))
            problems.append(Problem(None, f"?{name}", expected, given))
        else:
            flags[name] = choices[values[0]]
    if problems:
        raise RequestError(400, "Wrong Parameters", sentence(problems), problems)
    return Wanted(**flags)


def as_json(body: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(msgspec.json.encode(body), status, content_type="application/json")
