"""What operators and their tools ask: health, readiness, figures."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST

from peerloan.web.auth.endpoint_scopes import needs, public
from peerloan.web.http.responses import as_json
from peerloan.web.http.tested_libraries import untested_libraries
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.services import services
from peerloan.web.telemetry import metrics

blueprint = Blueprint("probes", __name__)


@blueprint.get("/healthz")
@public
def healthz() -> Response:
    """Whether this process answers and could load the champion that it was started for. Why not,
    the log says, and `/readyz` to a caller with a token. `untested_libraries` names those of which
    the public interface alone is used, if any.
    """
    unhealthy = services().serving_models.unhealthy
    body: dict[str, Any] = {"status": "unhealthy" if unhealthy else "ok"}
    if untested := untested_libraries():
        body["untested_libraries"] = untested
    return as_json(body, 503 if unhealthy else 200)


@blueprint.get("/readyz")
@public
def readyz() -> Response:
    """Whether a verified champion is loaded, `ledger` whether decisions can be kept, and `clock`
    that it was set back. Callers with a token learn which version is loaded, in `refused` why a
    newer one is not, in `remedy` what to do where none is, in `challenger_refused` why the
    challenger is not, and in `not_followed` since when the store could not be read.
    """
    held = services()
    models, writer = held.serving_models, held.writer
    current, refusal = models.current, models.refusal
    waiting = "champion refused" if refusal else "waiting for a champion"
    body: dict[str, Any] = {"status": "ready" if current else waiting}
    if held.authenticator.is_trusted(request.environ):
        body |= _details(models)
    # Other replicas have the same one: without it, none is readier than this.
    body["ledger"] = "available" if writer.unavailable_reason is None else "unavailable"
    if clock := writer.clock:
        body["clock"] = clock
    return as_json(body, 200 if current else 503)


def _details(followed: ServingModels) -> dict[str, Any]:
    """What `/readyz` says to callers with a token alone."""
    details: dict[str, Any] = {}
    if current := followed.current:
        details["model"] = {"version": current.bundle.version, "digest": current.bundle.digest}
    if followed.refusal:
        details["refused"] = followed.refusal
    if followed.remedy:
        details["remedy"] = followed.remedy
    if followed.challenger_refusal:
        details["challenger_refused"] = followed.challenger_refusal
    # What serves goes on serving, and is as ready as before.
    if followed.not_followed:
        details["not_followed"] = followed.not_followed
    return details


@blueprint.get("/metrics")
@needs("metrics")
def figures() -> Response:
    """Figures of all workers, for Prometheus; not for the public."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
