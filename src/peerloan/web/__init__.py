"""The Flask application: predictions over HTTP and on a page, from the current champion."""

from peerloan.web.app import create_app

__all__ = ["create_app"]
