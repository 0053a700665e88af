"""Our service with the ledger off: decisions are counted and answered, and that is all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from flask import Flask, Response

from peerloan.web.api import predictions
from peerloan.web.prediction import predict
from peerloan.web.prediction.predict import Answer
from peerloan.web.server import wsgi
from peerloan.web.server.granian import run


def unkept(
    answer: Answer,
    _inputs: object,
    _source: object,
    _wanted: object,
    shape: Callable[..., Any],
    *_: object,
) -> Response:
    """In the place of `keep`: the answer leaves at once."""
    predict.count(answer)
    response: Response = shape(answer.body())
    return response


def application() -> Flask:
    """The application."""
    predictions.keep = unkept  # type: ignore[assignment, attr-defined]
    return wsgi.application()


if __name__ == "__main__":
    run("unkept:application", "127.0.0.1", int(sys.argv[1]), workers=1)
