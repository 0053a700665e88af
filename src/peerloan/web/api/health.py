"""Endpoints for operators and their tools: health, readiness, metrics."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from peerloan.web.auth.endpoint_scopes import public, require_scopes
from peerloan.web.http.responses import as_json
from peerloan.web.http.tested_libraries import untested_libraries
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.services import services
from peerloan.web.telemetry import metrics

blueprint = Blueprint("probes", __name__)


@blueprint.get("/healthz")
@public
def healthz() -> Response:
    """Return whether this process is healthy: it responds, and it loaded a champion at its start.

    The log has the reason if not, and so has `/readyz` for a caller with a token.
    `untested_libraries` names the libraries that are used through their public interface only, if
    any.
    """
    unhealthy = services().serving_models.unhealthy
    body: dict[str, Any] = {"status": "unhealthy" if unhealthy else "ok"}
    if untested := untested_libraries():
        body["untested_libraries"] = untested
    return as_json(body, 503 if unhealthy else 200)


@blueprint.get("/readyz")
@public
def readyz() -> Response:
    """Return whether this process is ready: a verified champion is loaded.

    `ledger` is whether decisions can be stored, `clock` whether the clock was set back. Callers
    with a token also get the loaded version, in `refused` why a newer one is not loaded, in
    `remedy` what to do if none is, in `challenger_refused` why the challenger is not loaded, and in
    `not_followed` since when the store could not be read.
    """
    held = services()
    models, writer = held.serving_models, held.writer
    current, refusal = models.current, models.refusal
    waiting = "champion refused" if refusal else "waiting for a champion"
    body: dict[str, Any] = {"status": "ready" if current else waiting}
    if held.authenticator.is_trusted(request.environ):
        body |= _details(models)
    # All replicas share the ledger, so without it no other one is readier.
    body["ledger"] = "available" if writer.unavailable_reason is None else "unavailable"
    if clock := writer.clock:
        body["clock"] = clock
    return as_json(body, 200 if current else 503)


def _details(followed: ServingModels) -> dict[str, Any]:
    """Return the part of `/readyz` that only callers with a token get."""
    details: dict[str, Any] = {}
    if current := followed.current:
        details["model"] = {"version": current.bundle.version, "digest": current.bundle.digest}
    if followed.refusal:
        details["refused"] = followed.refusal
    if followed.remedy:
        details["remedy"] = followed.remedy
    if followed.challenger_refusal:
        details["challenger_refused"] = followed.challenger_refusal
    # An unreadable store does not affect readiness: the loaded model continues to serve.
    if followed.not_followed:
        details["not_followed"] = followed.not_followed
    return details


@blueprint.get("/metrics")
@require_scopes("metrics")
def figures() -> Response:
    """Return the metrics of all workers for Prometheus; a token is needed."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
