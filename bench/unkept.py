"""The service without its ledger: it counts decisions and responds, but stores nothing."""

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
        predict.count_committed(answer)
        return render(answer.body())


def store_nothing(app: Flask) -> None:
    """Make an application respond without its ledger."""
    shared = services_of(app)
    committer = NoCommitter(shared.writer, shared.database, shared.store, shared.serving_models)
    install(app, replace(shared, committer=committer))


def application() -> Flask:
    """Make the application."""
    app = wsgi.application()
    store_nothing(app)
    return app


if __name__ == "__main__":
    run("unkept:application", "127.0.0.1", int(sys.argv[1]), workers=1)
