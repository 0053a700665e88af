"""What operators and their tools ask: health, readiness, figures."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST

from peerloan.service import metrics
from peerloan.service.api import as_json, champion
from peerloan.service.callers import free
from peerloan.service.keeping import writer

blueprint = Blueprint("probes", __name__)


@blueprint.get("/healthz")
@free
def healthz() -> Response:
    """Whether this process answers and could load the champion that it was started for."""
    if reason := champion().unhealthy:
        return as_json({"status": "unhealthy", "reason": reason}, 503)
    return as_json({"status": "ok"})


@blueprint.get("/readyz")
@free
def readyz() -> Response:
    """Whether a verified champion is loaded; `refused` says why a newer one is not,
    `challenger_refused` why the challenger is not, `ledger` whether decisions can be kept, and
    `clock` that it was set back.
    """
    current, refusal = champion().current, champion().refusal
    waiting = "champion refused" if refusal else "waiting for a champion"
    body: dict[str, Any] = {"status": "ready" if current else waiting}
    if current:
        body["model"] = {"version": current.bundle.version, "digest": current.bundle.digest}
    if refusal:
        body["refused"] = refusal
    if challenger_refusal := champion().challenger_refusal:
        body["challenger_refused"] = challenger_refusal
    # Other replicas have the same one: without it, none is readier than this.
    body["ledger"] = "available" if writer().down is None else "unavailable"
    if clock := writer().clock:
        body["clock"] = clock
    return as_json(body, 200 if current else 503)


@blueprint.get("/metrics")
def figures() -> Response:
    """Figures of all workers, for Prometheus; not for the public."""
    return Response(metrics.exposition(), content_type=CONTENT_TYPE_LATEST)
