"""The long-lived objects of one application, typed, as views and tests get them."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask, current_app, request

from peerloan.database import Database
from peerloan.ledger.write.group_commit import LedgerWriter
from peerloan.registry import Store
from peerloan.web.auth.authentication import Authenticator
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction.commit import DecisionCommitter
from peerloan.web.prediction.serving_models import LoadedModel, ServingModels
from peerloan.web.prediction.shadow import Shadow

_EXTENSION = "peerloan"


@dataclass(frozen=True, slots=True)
class Services:
    """The objects that the views of one application share.

    Thread safety: every member may be used from any thread of this process. None of them survives a
    fork: make an application in each worker process.

    Ownership: the application owns them for as long as the process runs; nothing closes them. The
    threads of `writer`, `serving_models` and `shadow` end with the main thread. Views keep no
    reference beyond their request. A view takes `serving_models.current` once and uses that model
    to the end of its request, because a promotion may replace it meanwhile.

    Errors: `store` raises StoreError and StoreFault, `database` LedgerUnavailable, `committer`
    RequestError. The application's error handlers answer each of them. `writer`, `serving_models`
    and `shadow` log their own faults and go on. `writer.unavailable_reason` and
    `serving_models.refusal` return the reason.
    """

    store: Store
    database: Database
    writer: LedgerWriter
    serving_models: ServingModels
    shadow: Shadow
    committer: DecisionCommitter
    authenticator: Authenticator


def install(app: Flask, made: Services) -> None:
    """Give an application its services; a second call replaces them."""
    app.extensions[_EXTENSION] = made


def services_of(app: Flask) -> Services:
    """Return an application's services; raises LookupError if `install` gave it none."""
    found = app.extensions.get(_EXTENSION)
    if not isinstance(found, Services):
        raise LookupError(f"the application {app.name} has no services: make it by create_app")
    return found


def services() -> Services:
    """Return the services of the application that answers this request; raises as `services_of`."""
    # Not the proxy, by which each look-up takes a third of a microsecond.
    return services_of(current_app._get_current_object())  # type: ignore[attr-defined]


def require_champion() -> LoadedModel:
    """Return the model that answers this request; raises RequestError 503 while there is none."""
    held = services()
    models = held.serving_models
    if (current := models.current) is not None:
        return current
    why = "train and promote one"
    if models.refusal:
        # The reason names versions and files, so only callers with a token get it.
        is_trusted = held.authenticator.is_trusted(request.environ)
        why = "the champion was refused"
        why += f": {models.refusal}" if is_trusted else "; the log says why"
    raise RequestError(
        503,
        "No Champion",
        f"No model version is being served yet; {why}.",
        headers={"Retry-After": "2"},
    )
