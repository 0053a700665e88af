"""What is left out of Flask is missed by nobody: addresses, hooks, contexts and errors."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from flask import (
    Flask,
    current_app,
    g,
    has_app_context,
    has_request_context,
    request,
    signals,
    url_for,
)
from werkzeug.routing import Rule

from helpers.apps import create_app
from peerloan.settings import Settings
from peerloan.web.http.flask_application import make_application
from peerloan.web.http.lean_flask import Application
from peerloan.web.http.responses import RawResponse


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The service's application, on a store without a champion."""
    return create_app(Settings(tmp_path / "store", tmp_path / "tokens"), on_loopback=True)


@pytest.fixture
def small(flask_version: None) -> Flask:
    """An application with a view that is whole, one that is not, and one that fails."""
    made = make_application("small")
    whole = RawResponse(b"whole", "text/plain")
    made.add_url_rule("/whole", view_func=lambda: whole, endpoint="whole")
    made.add_url_rule("/usual", view_func=lambda: "usual", endpoint="usual")
    made.add_url_rule("/twice/<int:n>", view_func=lambda n: str(2 * n), endpoint="twice")
    made.add_url_rule("/fails", view_func=lambda: [][0], endpoint="fails")
    made.register_error_handler(IndexError, lambda error: (f"told: {error}", 418))
    return made


def test_nothing_is_registered_that_is_passed_over(app: Flask) -> None:
    assert not app.teardown_request_funcs
    assert not app.teardown_appcontext_funcs
    assert not app.url_value_preprocessors
    assert set(app.before_request_funcs) == {None}
    assert app.secret_key is None, "there are no sessions"
    for signal in (
        signals.request_started,
        signals.request_tearing_down,
        signals.appcontext_pushed,
        signals.appcontext_popped,
        signals.appcontext_tearing_down,
    ):
        assert not signal.receivers, signal


@pytest.mark.longer
def test_a_fixed_address_leads_where_every_address_of_flask_does(app: Flask) -> None:
    """The short way and Flask's own search find the same, redirects and refusals included."""
    adapter = app.url_map.bind("localhost")
    rules: list[Rule] = [rule for rule in app.url_map.iter_rules() if not rule.arguments]
    assert len(rules) > 10
    for rule in rules:
        for method in rule.methods or ():
            found, arguments = adapter.match(rule.rule, method, return_rule=True)
            assert app.fixed_rules[method, rule.rule] is found  # type: ignore[attr-defined]
            assert not arguments
    asked = [
        f"{before}{rule.rule}{after}"
        for rule in rules
        for before in ("", "/", "/x", "/.")
        for after in ("", "/", "//", "%2F", " ", ";x", ".", "\n", "\u00e9")
    ]
    methods = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "post", "NONSENSE")

    def answers() -> list[tuple[str | None, ...]]:
        client = app.test_client()
        found: list[tuple[str | None, ...]] = []
        for path in asked:
            for method in methods:
                answer = client.open("/", method=method, environ_overrides={"PATH_INFO": path})
                head = answer.headers
                found.append((method, path, answer.status, head.get("Location"), head.get("Allow")))
        return found

    short = answers()
    app.__dict__["fixed_rules"] = {}
    assert short == answers()
    assert len({status for _, _, status, *_ in short}) > 4


def test_a_whole_answer_leaves_as_it_was_made(small: Flask) -> None:
    answer = small.test_client().get("/whole")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, b"whole", "text/plain")
    assert answer.headers["Content-Length"] == "5"


def test_what_is_not_whole_goes_through_the_hooks(small: Flask) -> None:
    @small.before_request
    def before() -> str | None:
        return "stopped" if request.args.get("stop") else None

    @small.after_request
    def after(response: object) -> object:
        response.headers["X-After"] = request.path  # type: ignore[attr-defined]
        return response

    client = small.test_client()
    assert client.get("/usual").headers["X-After"] == "/usual"
    assert client.get("/whole?stop=1").data == b"stopped"
    assert client.get("/twice/21").data == b"42"
    told = client.get("/fails")
    assert (told.status_code, told.data) == (418, b"told: list index out of range")
    assert client.get("/nowhere").status_code == 404


def test_contexts_end_with_their_request(small: Flask) -> None:
    for path in ("/whole", "/usual", "/fails", "/nowhere"):
        small.test_client().get(path)
        assert not has_app_context()
        assert not has_request_context()
    with small.test_request_context("/twice/1?x=2"):
        g.mine = 1
        assert url_for("twice", n=3) == "/twice/3"
        with small.test_request_context("/usual"):
            assert request.path == "/usual"
            # Flask has one `g` for the nested contexts of an application.
            assert hasattr(g, "mine") != isinstance(small, Application)
        assert (request.path, request.args["x"], g.mine) == ("/twice/1", "2", 1)
    with small.app_context():
        assert current_app == small
        assert not has_request_context()
    assert not has_app_context()


def test_the_files_of_a_form_are_closed(small: Flask) -> None:
    seen = []

    def upload() -> str:
        seen.append(request.files["book"])
        return "taken"

    small.add_url_rule("/upload", view_func=upload, methods=["POST"])
    answer = small.test_client().post("/upload", data={"book": (io.BytesIO(b"x"), "book.csv")})
    assert answer.data == b"taken"
    assert seen[0].stream.closed


def test_two_slashes_lead_nowhere(flask_version: None, app: Flask) -> None:
    """To be sent elsewhere would take a loan off the TLS that ended in front of the service."""
    answer = app.test_client().post("/", environ_overrides={"PATH_INFO": "/v1//predictions"})
    assert answer.status_code == 404
    assert "Location" not in answer.headers
