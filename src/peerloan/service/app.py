"""The application factory."""

from __future__ import annotations

from flask import Flask
from flask_bootstrap import Bootstrap5

from peerloan.model import Store
from peerloan.service import api, assets, pages, probes, problems
from peerloan.service.champion import Champion
from peerloan.service.observing import Observed
from peerloan.service.shadow import Shadow
from peerloan.settings import Settings


def create_app(settings: Settings) -> Flask:
    """The application over a store; it starts to follow the store's champion at once.

    Make one in each worker process: the thread that follows does not survive a fork.
    """
    app = Flask(__name__)
    # One byte more, because a chunked body is cut off there without a word: who reads can tell.
    app.config["MAX_CONTENT_LENGTH"] = api.MAX_BODY_BYTES + 1
    app.config["MAX_FORM_MEMORY_SIZE"] = api.MAX_BODY_BYTES
    app.config["BOOTSTRAP_SERVE_LOCAL"] = True
    Bootstrap5(app)
    champion = Champion(Store(settings.store))
    champion.watch()
    app.extensions["champion"] = champion
    app.extensions["shadow"] = Shadow(champion)
    for room in (api, pages, probes):
        app.register_blueprint(room.blueprint)
    problems.register(app)
    assets.register(app)
    app.wsgi_app = Observed(app.wsgi_app)  # type: ignore[method-assign]
    return app
