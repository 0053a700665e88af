"""A faster Flask: it skips work that this service never needs, by private parts of Flask.

It skips signals, Flask's session, URL adapters for each host, URL matching for static routes, and
the hooks of blueprints. That is two thirds of the time of an empty view (docs/performance.md).
`tests/unit/web/http/test_lean_flask.py` checks that nothing is registered that would be skipped.
Import this module through `flask_application`, which uses plain Flask instead if the installed
release of Flask was not tested.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.ctx import AppContext, RequestContext
from flask.globals import _cv_app, _cv_request
from flask.sessions import NullSession
from werkzeug.routing import MapAdapter, Rule

from peerloan.web.http.responses import RawResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment


class Application(Flask):
    """A Flask application for one host, without subdomains, coroutines, sessions and signals."""

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """Make the context of a request."""
        return _Context(self, environ)

    def app_context(self) -> AppContext:
        """Make the context of the application."""
        return _AppContext(self)

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Make the URL adapter of a request; the host is ignored."""
        if request is None:
            return super().create_url_adapter(request)
        return self.url_map.bind(
            request.host,
            request.root_path,
            "",
            request.scheme,
            request.method,
            request.path,
            request.query_string.decode("latin-1"),
        )

    @cached_property
    def fixed_rules(self) -> dict[tuple[str, str], Rule]:
        """Static routes, by (method, path)."""
        rules: dict[tuple[str, str], Rule] = {}
        for rule in self.url_map.iter_rules():
            if not rule.arguments and rule.redirect_to is None:
                for method in rule.methods or ():
                    rules.setdefault((method, rule.rule), rule)
        return rules

    def full_dispatch_request(self) -> Response:
        """Answer the current request as Flask does, but send a `RawResponse` unchanged."""
        self._got_first_request = True  # from now on, Flask refuses to register anything
        try:
            response: Any = self.preprocess_request()
            if response is None:
                response = self.dispatch_request()
            if type(response) is RawResponse:
                return response  # type: ignore[return-value]
        except Exception as error:
            response = self.handle_user_exception(error)
        return self.finalize_request(response)

    def preprocess_request(self) -> Any:
        """Run the application's hooks, until one of them returns a response."""
        for hook in self.before_request_funcs.get(None, ()):
            if (response := hook()) is not None:
                return response
        return None

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function unchanged: this application has no coroutines."""
        return func


class _AppContext(AppContext):
    """An application context that makes its URL adapter on first use."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.g = app.app_ctx_globals_class()
        self._cv_tokens = []

    @cached_property
    def url_adapter(self) -> MapAdapter | None:  # type: ignore[override]
        return self.app.create_url_adapter(None)


class _Context(RequestContext):
    """A request's context, which also pushes and pops the application's context."""

    def __init__(self, app: Application, environ: WSGIEnvironment) -> None:
        self.app: Application = app
        self.request = app.request_class(environ)
        self.request.json_module = app.json
        self.flashes = None
        self._session = _NO_SESSION
        self._after_request_functions = []
        self._tokens: list[Any] = []

    @cached_property
    def url_adapter(self) -> MapAdapter | None:  # type: ignore[override]
        return self.app.create_url_adapter(self.request)

    def push(self) -> None:
        """Make this the current context, and find the view."""
        self._tokens.append((_cv_app.set(_AppContext(self.app)), _cv_request.set(self)))
        self.match_request()

    def pop(self, exc: BaseException | None = None) -> None:  # noqa: ARG002
        """Close the request and restore the contexts that were current before."""
        self.request.close()
        self.request.environ["werkzeug.request"] = None  # otherwise a reference cycle would remain
        app_token, request_token = self._tokens.pop()
        _cv_request.reset(request_token)
        _cv_app.reset(app_token)

    def match_request(self) -> None:
        """Find the URL rule of the path: a static route by look-up, any other by Werkzeug."""
        request = self.request
        rule = self.app.fixed_rules.get((request.method, request.path))
        if rule is None:
            super().match_request()
        else:
            request.url_rule, request.view_args = rule, {}


_NO_SESSION = NullSession()
