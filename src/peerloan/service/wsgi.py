"""The application for WSGI servers, under the name that operators' commands give."""

from peerloan.web.server.wsgi import application

__all__ = ["application"]
