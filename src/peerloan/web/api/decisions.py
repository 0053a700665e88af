"""Stored decisions over HTTP: one by its id, or pages filtered by loan, time, version and band."""

from __future__ import annotations

from flask import Blueprint, Response, request

from peerloan.web.auth.authentication import only_caller
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http.query_parameters import refuse_parameters
from peerloan.web.http.responses import as_json
from peerloan.web.prediction.stored_decisions import read_decision, read_page
from peerloan.web.services import services

blueprint = Blueprint("decisions", __name__)


@blueprint.get("/v1/predictions/<decision>")
@require_scopes("read", "predict")
def decision(decision: str) -> Response:
    """Return one decision with its inputs, caller, challenger score and outcomes."""
    refuse_parameters()
    return as_json(read_decision(services().database, decision, only_caller(request.environ)))


@blueprint.get("/v1/predictions")
@require_scopes("read", "predict")
def decisions() -> Response:
    """Return a page of decisions, newest first; `next` is the cursor of the following page.

    A caller without the scope `read` gets only the decisions that it requested.
    """
    page = read_page(services().database, only_caller(request.environ))
    return as_json({"predictions": page.decisions, "next": page.next})
