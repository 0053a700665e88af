"""Health, readiness and metrics, for operators and orchestrators."""

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
    """Return whether this process is healthy: it responds, and it could load its first champion.

    If not, the log has the reason, and callers with a token get it from `/readyz`.
    `untested_libraries` lists the libraries that are used through their public interface only.
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

    `ledger` is whether decisions can be stored. `clock` is only there if the clock was set back: by
    how much. Callers with a token also get:
    - `model`: the loaded version.
    - `refused`: why the version that the store names as champion is not loaded.
    - `remedy`: what to do if no version is loaded.
    - `challenger_refused`: why the challenger is not loaded.
    - `not_followed`: for how long the store could not be read.
    """
    shared = services()
    models, writer = shared.serving_models, shared.writer
    current, refusal = models.current, models.refusal
    waiting = "champion refused" if refusal else "waiting for a champion"
    body: dict[str, Any] = {"status": "ready" if current else waiting}
    if shared.authenticator.is_trusted(request.environ):
        body |= _details(models)
    # An unavailable ledger does not affect readiness, because all replicas share it.
    body["ledger"] = "available" if writer.unavailable_reason is None else "unavailable"
    if clock := writer.clock_warning:
        body["clock"] = clock
    return as_json(body, 200 if current else 503)


def _details(models: ServingModels) -> dict[str, Any]:
    """Return the part of `/readyz` that only callers with a token get."""
    details: dict[str, Any] = {}
    if current := models.current:
        details["model"] = {"version": current.bundle.version, "digest": current.bundle.digest}
    if models.refusal:
        details["refused"] = models.refusal
    if models.remedy:
        details["remedy"] = models.remedy
    if models.challenger_refusal:
        details["challenger_refused"] = models.challenger_refusal
    # An unreadable store does not affect readiness: the loaded model continues to serve.
    if models.not_followed:
        details["not_followed"] = models.not_followed
    return details


@blueprint.get("/metrics")
@require_scopes("metrics")
def figures() -> Response:
    """Return the metrics of all workers, for Prometheus."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
