"""The application factory."""

from __future__ import annotations

import contextlib
from typing import BinaryIO

from flask import Flask
from flask_bootstrap import Bootstrap5

from peerloan.database import Database, LedgerUnavailable
from peerloan.database.engine import ANSWER_SECONDS
from peerloan.ledger.seal_ownership import ready_seal
from peerloan.ledger.write.group_commit import Writer
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
from peerloan.web.auth.sessions import Sessions
from peerloan.web.auth.tokens import Tokens
from peerloan.web.desk import api_reference, assess, assets
from peerloan.web.http import problems
from peerloan.web.http.application import make_application
from peerloan.web.http.path_prefix import Prefixed
from peerloan.web.prediction.serving_models import Champion
from peerloan.web.prediction.shadow import Shadow
from peerloan.web.telemetry import metrics
from peerloan.web.telemetry.middleware import Observed


def create_app(settings: Settings, log: BinaryIO | None = None, on_loopback: bool = False) -> Flask:
    """The application over a store and a ledger; it starts to follow the store's champion at once.

    `log` takes a line for each request; a server has one. `on_loopback` says that only
    this machine can ask: then nobody needs a token until the first one is made.
    Make one in each worker process: the thread that follows does not survive a fork. Raises
    LedgerError where the ledger's tables are none that this release may write to.
    """
    app = make_application(__name__, template_folder="desk/templates", static_folder="desk/static")
    # One byte more, because a chunked body is cut off there without a word: who reads can tell.
    app.config["MAX_CONTENT_LENGTH"] = predictions.MAX_BODY_BYTES + 1
    app.config["MAX_FORM_MEMORY_SIZE"] = predictions.MAX_BODY_BYTES
    app.config["BOOTSTRAP_SERVE_LOCAL"] = True
    Bootstrap5(app)
    store = Store(settings.store)
    champion = Champion(store)
    champion.watch()
    app.extensions["store"] = store
    app.extensions["champion"] = champion
    database = Database(settings.ledger_url, settings.ledger_password_file, ANSWER_SECONDS)
    with contextlib.suppress(LedgerUnavailable):  # it may come later, and is asked again then
        database.ready()
    app.extensions["database"] = database
    writer = Writer(
        database, lambda: ready_seal(settings.seal_folder, database), metrics.count_commit
    )
    app.extensions["ledger"] = writer
    app.extensions["shadow"] = Shadow(champion, database, writer)
    for module in (
        predictions,
        decisions,
        api_reference,
        models,
        monitoring,
        outcomes,
        assess,
        health,
        inference_protocol,
    ):
        app.register_blueprint(module.blueprint)
    tokens = Tokens(settings.tokens, settings.tokens_marker)
    authentication.register(app, tokens, Sessions(settings.ended_sessions), on_loopback)
    problems.register(app)
    assets.register(app)
    observed = Observed(app.wsgi_app, log)
    app.wsgi_app = Prefixed(observed, settings.prefix)  # type: ignore[method-assign]
    return app
