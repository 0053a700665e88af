"""The Flask application: predictions over HTTP and on a page, with the champion swapped live."""

from peerloan.web.app import create_app

__all__ = ["create_app"]
