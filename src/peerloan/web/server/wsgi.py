"""The application as WSGI servers start it, once in each worker process."""

from __future__ import annotations

import gc
import logging
import sys
from datetime import UTC, datetime

import msgspec
from flask import Flask

from peerloan.settings import read_settings
from peerloan.web.app import create_app
from peerloan.web.auth import loopback


class Json(logging.Formatter):
    """A record as one line of JSON, as the lines of requests are."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["fault"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def application() -> Flask:
    """The application by the settings of the environment; its thread begins in this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Json())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    app = create_app(read_settings(), sys.stdout.buffer, loopback.announced())
    # What is loaded now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return app
