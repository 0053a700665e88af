"""The application factory."""

from __future__ import annotations

import contextlib
from typing import BinaryIO

from flask import Flask
from flask_bootstrap import Bootstrap5

from peerloan.ledger import Database, LedgerUnavailable
from peerloan.ledger.database import ANSWER_SECONDS
from peerloan.ledger.own_seal import ready_seal
from peerloan.ledger.writer import Writer
from peerloan.model import Store
from peerloan.service import (
    api,
    assets,
    callers,
    decisions,
    docs,
    metrics,
    models,
    monitoring,
    outcomes,
    pages,
    probes,
    problems,
    protocol,
)
from peerloan.service.application import Application
from peerloan.service.champion import Champion
from peerloan.service.observing import Observed
from peerloan.service.prefix import Prefixed
from peerloan.service.sessions import Sessions
from peerloan.service.shadow import Shadow
from peerloan.service.tokens import Tokens
from peerloan.settings import Settings


def create_app(settings: Settings, log: BinaryIO | None = None, on_loopback: bool = False) -> Flask:
    """The application over a store and a ledger; it starts to follow the store's champion at once.

    `log` takes a line for each request; a server has one. `on_loopback` says that only
    this machine can ask: then nobody needs a token until the first one is made.
    Make one in each worker process: the thread that follows does not survive a fork. Raises
    LedgerError where the ledger's tables are none that this release may write to.
    """
    app = Application(__name__)
    # One byte more, because a chunked body is cut off there without a word: who reads can tell.
    app.config["MAX_CONTENT_LENGTH"] = api.MAX_BODY_BYTES + 1
    app.config["MAX_FORM_MEMORY_SIZE"] = api.MAX_BODY_BYTES
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
    for room in (api, decisions, docs, models, monitoring, outcomes, pages, probes, protocol):
        app.register_blueprint(room.blueprint)
    tokens = Tokens(settings.tokens, settings.tokens_marker)
    callers.register(app, tokens, Sessions(settings.ended_sessions), on_loopback)
    problems.register(app)
    assets.register(app)
    observed = Observed(app.wsgi_app, log)
    app.wsgi_app = Prefixed(observed, settings.prefix)  # type: ignore[method-assign]
    return app
