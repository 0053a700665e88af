"""The application factory: makes the Flask application and the objects that its views share."""

from __future__ import annotations

import contextlib
from typing import BinaryIO

from flask import Flask
from flask_bootstrap import Bootstrap5

from peerloan.database import Database, LedgerUnavailable
from peerloan.database.engine import ANSWER_SECONDS
from peerloan.ledger.seal_ownership import open_seal
from peerloan.ledger.write.group_commit import LedgerWriter
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.web.api import (
    decisions,
    health,
    inference_protocol,
    models,
    monitoring,
    outcomes,
    predictions,
)
from peerloan.web.auth import authentication
from peerloan.web.auth.authentication import Authenticator
from peerloan.web.auth.sessions import Sessions
from peerloan.web.auth.tokens import Tokens
from peerloan.web.desk import api_reference, assess, assets, sign_in
from peerloan.web.desk import decisions as decision_pages
from peerloan.web.desk import models as model_pages
from peerloan.web.http import problems
from peerloan.web.http.flask_application import make_application
from peerloan.web.http.limits import MAX_BODY_BYTES
from peerloan.web.http.path_prefix import PathPrefixMiddleware
from peerloan.web.prediction.commit import DecisionCommitter
from peerloan.web.prediction.serving_models import ServingModels
from peerloan.web.prediction.shadow import Shadow
from peerloan.web.services import Services, install
from peerloan.web.telemetry import metrics
from peerloan.web.telemetry.middleware import AccessLogMiddleware

_VIEWS = (
    predictions,
    decisions,
    api_reference,
    models,
    monitoring,
    outcomes,
    assess,
    decision_pages,
    model_pages,
    health,
    inference_protocol,
    sign_in,
)


def create_app(settings: Settings, log: BinaryIO | None = None, on_loopback: bool = False) -> Flask:
    """Make the application for the store and the ledger in the settings.

    This starts threads, for example to follow the store's aliases. Threads don't survive a fork, so
    call it in each worker process. `log` is the access log, which gets a line for each request.
    `on_loopback` means that only this machine can connect; then callers need no token until the
    first one is made. Raises LedgerError if this release may not write to the ledger's tables.
    """
    app = make_application(__name__, template_folder="desk/templates", static_folder="desk/static")
    # One byte more than the limit: Werkzeug cuts a chunked body at MAX_CONTENT_LENGTH without an
    # error. With this byte, `read_body` notices that the body is too large.
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES + 1
    app.config["MAX_FORM_MEMORY_SIZE"] = MAX_BODY_BYTES
    app.config["BOOTSTRAP_SERVE_LOCAL"] = True
    Bootstrap5(app)
    services = _make_services(settings, on_loopback)
    install(app, services)
    for module in _VIEWS:
        app.register_blueprint(module.blueprint)
    authentication.register(app, services.authenticator, sign_in.render_sign_in)
    problems.register(app)
    assets.register(app)
    logged = AccessLogMiddleware(app.wsgi_app, log)
    app.wsgi_app = PathPrefixMiddleware(logged, settings.prefix)  # type: ignore[method-assign]
    return app


def _make_services(settings: Settings, on_loopback: bool) -> Services:
    """Make the objects that views share, and start the threads that follow the store."""
    store = Store(settings.store)
    serving_models = ServingModels(store)
    serving_models.watch()
    database = Database(settings.ledger_url, settings.ledger_password_file, ANSWER_SECONDS)
    with contextlib.suppress(LedgerUnavailable):  # it is checked again once it is available
        database.prepare()
    writer = LedgerWriter(
        database, lambda: open_seal(settings.seal_folder, database), metrics.count_commit
    )
    tokens = Tokens(settings.tokens, settings.tokens_marker)
    return Services(
        store=store,
        database=database,
        writer=writer,
        serving_models=serving_models,
        shadow=Shadow(serving_models, database, writer),
        committer=DecisionCommitter(writer, database, store, serving_models),
        authenticator=Authenticator(tokens, Sessions(settings.ended_sessions), on_loopback),
    )
