"""Our service with the ledger off: each decision is told at once that it is kept."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from flask import Flask

from peerloan.ledger import Entry, Ids
from peerloan.ledger.writer import Told
from peerloan.service import wsgi
from peerloan.service.server import run


class Unkept:
    """In the place of the ledger's writer: makes the ids and keeps nothing."""

    down = None

    def __init__(self) -> None:
        self._ids = Ids()
        self._turn = threading.Lock()

    def put(self, make: Callable[[Ids], Entry], told: Told) -> None:
        """Say at once that what is made is kept."""
        with self._turn:
            make(self._ids)
        told(None)


def application() -> Flask:
    """The application."""
    app = wsgi.application()
    app.extensions["ledger"] = Unkept()
    return app


if __name__ == "__main__":
    run("unkept:application", "127.0.0.1", int(sys.argv[1]), workers=1)
