"""Our service without the ledger: decisions are counted and answered, but not stored."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flask import Flask

from peerloan.web.prediction import predict
from peerloan.web.prediction.commit import DecisionCommitter
from peerloan.web.prediction.predict import Answer
from peerloan.web.server import wsgi
from peerloan.web.server.granian import run
from peerloan.web.services import install, services_of


class NoCommitter(DecisionCommitter):
    """Responds at once, and stores nothing."""

    def respond(
        self, answer: Answer, _submission: object, render: Callable[..., Any], *_: object
    ) -> Any:
        """Count the decisions and render the answer, which has no ids."""
        predict.count(answer)
        return render(answer.body())


def keep_nothing(app: Flask) -> None:
    """Make an application answer without its ledger."""
    held = services_of(app)
    without = NoCommitter(held.writer, held.database, held.store, held.serving_models)
    install(app, replace(held, committer=without))


def application() -> Flask:
    """Make the application."""
    app = wsgi.application()
    keep_nothing(app)
    return app


if __name__ == "__main__":
    run("unkept:application", "127.0.0.1", int(sys.argv[1]), workers=1)
