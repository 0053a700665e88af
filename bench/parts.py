"""Where the time of a prediction goes, by adding its parts one by one to an empty view.

python bench/parts.py

Measures in this process, without a network and without the ledger: an empty Flask view, and our
application with a token, metrics and log lines. Prints the best of several runs of each, in
microseconds. Then it measures a token check, a decision on varied loans, and 10,000 loans at once.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from flask import Flask, request
from rich.console import Console
from rich.table import Table

import empty
import unkept
from peerloan.cli.commands.bootstrap import train_on_sample
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.sample_data import batches
from peerloan.settings import Settings
from peerloan.web.app import create_app
from peerloan.web.auth.tokens import Tokens
from peerloan.web.http.limits import MAX_BODY_BYTES
from peerloan.web.http.request_body import read_body
from peerloan.web.http.responses import RawResponse
from peerloan.web.prediction.loan_parsing import parse_loans as parse
from peerloan.web.prediction.predict import ResponseOptions, answer_many, answer_one
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.services import services_of

LOAN = {field.name: field.default for field in default_definition().fields}
BODY = json.dumps(LOAN).encode()
NOTHING = b"x" * 900  # as long as an answer
CALLS, RUNS = 2_000, 15
MANY = 10_000


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = Store(root / "store")
        store.promote(train_on_sample(root / "sample.csv", store)[0].version)
        token = Tokens(root / "tokens").new("bench", operator=False)
        with Path(os.devnull).open("wb") as log:
            app = create_app(Settings(store.root, root / "tokens"), log)
            found = _measure(app, {"HTTP_AUTHORIZATION": f"Bearer {token}"})
            found |= _alone(app, token)
    table = Table("what is done")
    table.add_column("µs", justify="right")
    for what, microseconds in found.items():
        table.add_row(what, f"{microseconds:,.1f}")
    Console().print(table)


def _measure(app: Flask, head: dict[str, str]) -> dict[str, float]:
    now = _model(app)
    usual = ResponseOptions()

    def nothing() -> RawResponse:
        return RawResponse(NOTHING, "application/json")

    def body() -> RawResponse:
        read_body(request.environ, MAX_BODY_BYTES)
        return nothing()

    def check() -> RawResponse:
        parse(now, read_body(request.environ, MAX_BODY_BYTES))
        return nothing()

    def decide() -> RawResponse:
        loan, _ = parse(now, read_body(request.environ, MAX_BODY_BYTES))
        now.bundle.decide(loan.values)  # type: ignore[union-attr]
        return nothing()

    def answer() -> RawResponse:
        answer_one(now, parse(now, read_body(request.environ, MAX_BODY_BYTES))[0], usual)  # type: ignore[arg-type]
        return nothing()

    views: dict[str, Callable[[], Any]] = {
        "ours, with a view that does nothing": nothing,
        "… and reads the body": body,
        "… and validates the loan": check,
        "… and decides, with reasons": decide,
        "… and assembles the answer": answer,
        "ours, complete": app.view_functions["api.predictions"],
    }
    unkept.store_nothing(app)
    found = {"an empty Flask view": _time(empty.application(), head)}
    for what, view in views.items():
        app.view_functions["api.predictions"] = view
        found[what] = _time(app, head)
    return found


def _model(app: Flask) -> LoadedModel:
    model = services_of(app).serving_models.current
    assert model is not None
    return model


def _alone(app: Flask, token: str) -> dict[str, float]:
    """Measure parts that are not added to the view."""
    now = _model(app)
    usual = ResponseOptions()
    authenticator = services_of(app).authenticator
    loans = [loan for batch in batches(MANY, seed=1) for loan in batch.to_pylist()]
    features = [{name: loan[name] for name in LOAN} for loan in loans]
    bodies = [msgspec.json.encode(loan) for loan in features]
    several = [parse(now, body)[0] for body in bodies[:CALLS]]
    as_list = msgspec.json.encode(features)
    as_columns = msgspec.json.encode({name: [loan[name] for loan in features] for name in LOAN})
    many: Any = parse(now, as_list)[0]

    def answers() -> None:
        for loan in several:
            msgspec.json.encode(answer_one(now, loan, usual).body())  # type: ignore[arg-type]

    return {
        "a token check": _best(lambda: authenticator.by_token(token), CALLS),
        "from a parsed loan to the finished answer, varied loans": _best(answers) / len(several),
        f"{MANY:,} loans: parsed and validated, as a list": _best(lambda: parse(now, as_list)),
        f"{MANY:,} loans: parsed and validated, as columns": _best(lambda: parse(now, as_columns)),
        f"{MANY:,} loans: decisions and reasons": _best(lambda: now.bundle.decide_many(many.loans)),
        f"{MANY:,} loans: complete, as a list": _best(
            lambda: msgspec.json.encode(answer_many(now, parse(now, as_list)[0], usual).body())  # type: ignore[arg-type]
        ),
    }


def _time(app: Flask, head: dict[str, str]) -> float:
    usual = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/v1/predictions",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "5000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(BODY)),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        **head,
    }
    seen: list[str] = []

    def call() -> None:
        environ = {**usual, "wsgi.input": io.BytesIO(BODY)}
        answer = app(environ, lambda status, _headers, _error=None: seen.append(status))  # type: ignore[arg-type]
        b"".join(answer)
        if close := getattr(answer, "close", None):
            close()

    call()
    if seen != ["200 OK"]:
        raise SystemExit(f"expected 200 OK, got {seen}")
    return _best(call, CALLS)


def _best(what: Callable[[], object], calls: int = 1) -> float:
    """Return the microseconds of a call, in the best of several runs."""
    return min(timeit.repeat(what, number=calls, repeat=RUNS)) / calls * 1e6


if __name__ == "__main__":
    main()
