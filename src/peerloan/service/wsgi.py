"""The application for WSGI servers, under the name that operators use in their commands."""

from peerloan.web.server.wsgi import application

__all__ = ["application"]
