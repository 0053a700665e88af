"""The WSGI entry point. Servers call `application` once in each worker process."""

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
    """Make the application by the environment's settings, and start its threads."""
    start_logging()
    app = create_app(read_settings(), sys.stdout.buffer, loopback.announced())
    log_untested()  # does nothing if the server has logged it before its fork
    # The objects made so far live as long as the process, so exclude them from garbage collection.
    gc.collect()
    gc.freeze()
    return app
