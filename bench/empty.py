"""An empty Flask view under the same server, with the same settings: the framework's own limit."""

from __future__ import annotations

import sys
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from peerloan.service.server import gunicorn_options


class _Empty(BaseApplication):  # type: ignore[misc]
    def load_config(self) -> None:
        for name, value in gunicorn_options("127.0.0.1", int(sys.argv[1]), workers=1).items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        app = Flask("empty")

        @app.post("/v1/predictions")
        def view() -> str:
            return "{}"

        @app.get("/readyz")
        def ready() -> str:
            return "{}"

        return app


_Empty().run()
