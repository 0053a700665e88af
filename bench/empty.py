"""An empty Flask view under the same server with the same settings, for comparison."""

from __future__ import annotations

import sys
import time

from flask import Flask

from peerloan.web.server.granian import run


def application() -> Flask:
    """Make an application that answers every prediction with an empty object."""
    app = Flask("empty")

    @app.post("/v1/predictions")
    def view() -> str:
        return "{}"

    @app.post("/wait")
    def wait() -> str:
        time.sleep(0.005)
        return "{}"

    @app.get("/readyz")
    def ready() -> str:
        return "{}"

    return app


if __name__ == "__main__":
    run("empty:application", "127.0.0.1", int(sys.argv[1]), workers=1)
