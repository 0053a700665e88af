"""The long-lived objects that the views of one application share, in one typed place.

`create_app` makes them and `install` attaches them to the application. Views call `services()`,
tests `services_of(app)`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from flask import Flask, current_app, request

from peerloan.database import Database
from peerloan.formatting import show_value
from peerloan.ledger.write.group_commit import LedgerWriter
from peerloan.registry import BundleError, Store, StoreError
from peerloan.web.auth.authentication import Authenticator
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction.commit import DecisionCommitter
from peerloan.web.prediction.serving_models import LoadedModel, ServingModels
from peerloan.web.prediction.shadow import Shadow

_EXTENSION = "peerloan"


@dataclass(frozen=True, slots=True)
class Services:
    """The objects that the views of one application share.

    Thread safety: every member may be used from any thread of this process, without a lock. No
    member survives a fork: make an application in each worker process.

    Ownership: the application owns the members until the process ends; nothing closes them. The
    threads of `writer`, `serving_models` and `shadow` end with the main thread. A view uses a
    member during its request only. It reads `serving_models.current` once and uses that model until
    its request ends, because a promotion may replace the model at any time.

    Errors that a call may raise:
    - `store`: StoreError, StoreFault. `database`: LedgerUnavailable. `committer`: RequestError.
      The application has an error handler for StoreFault, LedgerUnavailable and RequestError; a
      view handles StoreError itself.
    - `authenticator`: RequestError for a refused caller. If the tokens can't be read, it logs the
      fault and continues with the tokens that it read last.
    - `writer`, `serving_models` and `shadow` log the faults of their threads and continue. The
      reasons are in `writer.unavailable_reason` and `serving_models.refusal`.
    """

    store: Store
    database: Database
    writer: LedgerWriter
    serving_models: ServingModels
    shadow: Shadow
    committer: DecisionCommitter
    authenticator: Authenticator


def install(app: Flask, services: Services) -> None:
    """Attach services to an application. A second call replaces them."""
    app.extensions[_EXTENSION] = services


def services_of(app: Flask) -> Services:
    """Return an application's services. Raises LookupError if `install` was not called for it."""
    installed = app.extensions.get(_EXTENSION)
    if not isinstance(installed, Services):
        raise LookupError(
            f"the application {app.name} has no services; make the application with create_app"
        )
    return installed


def services() -> Services:
    """Return the services of the current application. Raises LookupError as `services_of` does."""
    # The application itself, not Flask's proxy: each access through the proxy takes 0.3 µs.
    return services_of(current_app._get_current_object())  # type: ignore[attr-defined]


def require_champion() -> LoadedModel:
    """Return the current champion. Raises RequestError 503 if none is loaded."""
    shared = services()
    models = shared.serving_models
    if (current := models.current) is not None:
        return current
    reason = "train one and promote it"
    if models.refusal:
        # The refusal names versions and files, so only callers with a token get it.
        is_trusted = shared.authenticator.is_trusted(request.environ)
        reason = "the champion was refused"
        reason += f": {models.refusal}" if is_trusted else "; the log has the reason"
    raise RequestError(
        503,
        "No Champion",
        f"No model version is being served yet; {reason}.",
        headers={"Retry-After": "2"},
    )


@contextlib.contextmanager
def reading_version(version: str) -> Iterator[None]:
    """Raise RequestError 404 if the store has no such version, 409 if it can't be verified."""
    try:
        yield
    except StoreError:
        detail = f"there is no version {show_value(version)}"
        raise RequestError(404, "No Such Version", detail) from None
    except BundleError as error:
        raise RequestError(409, "Version Refused", str(error)) from None
