"""Where the time of a prediction goes: one part after another is added to a view that does nothing.

python bench/parts.py

In this process, without a network: an empty Flask view, and our application with a token, its
figures and its line in the log. Prints the best of several runs of each, in microseconds.
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

from flask import Flask, request
from rich.console import Console
from rich.table import Table

import empty
from peerloan.cli.bootstrap import train_on_sample
from peerloan.loan import default_definition
from peerloan.model import Store
from peerloan.service import create_app
from peerloan.service.answers import Wanted, answer_one
from peerloan.service.api import MAX_BODY_BYTES
from peerloan.service.application import Whole
from peerloan.service.bodies import read_body
from peerloan.service.reading import read
from peerloan.service.tokens import Tokens
from peerloan.settings import Settings

LOAN = {field.name: field.default for field in default_definition().fields}
BODY = json.dumps(LOAN).encode()
NOTHING = b"x" * 900  # as long as an answer
CALLS, RUNS = 2_000, 15


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
    table = Table("what is done", "µs")
    for what, microseconds in found.items():
        table.add_row(what, f"{microseconds:.1f}")
    Console().print(table)


def _measure(app: Flask, head: dict[str, str]) -> dict[str, float]:
    now = app.extensions["champion"].current
    usual = Wanted()

    def nothing() -> Whole:
        return Whole(NOTHING, "application/json")

    def body() -> Whole:
        read_body(request.environ, MAX_BODY_BYTES)
        return nothing()

    def check() -> Whole:
        read(now, read_body(request.environ, MAX_BODY_BYTES))
        return nothing()

    def decide() -> Whole:
        loan = read(now, read_body(request.environ, MAX_BODY_BYTES))
        now.bundle.decide(loan.values)  # type: ignore[union-attr]
        return nothing()

    def answer() -> Whole:
        answer_one(now, read(now, read_body(request.environ, MAX_BODY_BYTES)), usual)  # type: ignore[arg-type]
        return nothing()

    views: dict[str, Callable[[], Any]] = {
        "ours, with a view that does nothing": nothing,
        "… and reads the body": body,
        "… and checks the loan": check,
        "… and decides, with reasons": decide,
        "… and puts the answer together": answer,
        "ours, whole": app.view_functions["api.predictions"],
    }
    found = {"an empty Flask view": _time(empty.application(), head)}
    for what, view in views.items():
        app.view_functions["api.predictions"] = view
        found[what] = _time(app, head)
    return found


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
        raise SystemExit(f"answered {seen}")
    seconds = min(timeit.repeat(call, number=CALLS, repeat=RUNS))
    return seconds / CALLS * 1e6


if __name__ == "__main__":
    main()
