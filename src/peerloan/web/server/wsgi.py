"""The application as WSGI servers start it, once in each worker process."""

from __future__ import annotations

import gc
import sys

from flask import Flask

from peerloan.settings import read_settings
from peerloan.web.app import create_app
from peerloan.web.auth import loopback
from peerloan.web.http.tested_libraries import log_untested
from peerloan.web.server.json_log import start_logging


def application() -> Flask:
    """The application by the settings of the environment; its thread begins in this process."""
    start_logging()
    app = create_app(read_settings(), sys.stdout.buffer, loopback.announced())
    log_untested()  # of a server that has not done so before it made its workers
    # What is loaded now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    return app
