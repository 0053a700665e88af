"""The application factory."""

from __future__ import annotations

from flask import Flask, Response
from flask_bootstrap import Bootstrap5

from peerloan.model import Store
from peerloan.service import api, assets, pages, problems
from peerloan.service.champion import Champion
from peerloan.settings import Settings

# Everything comes from this site; nothing frames it; no script but its own runs.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


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
    app.register_blueprint(api.blueprint)
    app.register_blueprint(pages.blueprint)
    problems.register(app)
    assets.register(app)

    @app.after_request
    def secure(response: Response) -> Response:
        response.headers.extend(_HEADERS)
        # What is said of a loan stays with who asked; styles and scripts may be kept.
        if not response.headers.get("Cache-Control"):
            response.headers["Cache-Control"] = "no-store"
        return response

    return app
