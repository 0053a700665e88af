"""Who calls: a token in the request's head, or a person who signed in with one."""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app, redirect, render_template, request
from itsdangerous import BadSignature, URLSafeTimedSerializer

from peerloan.service.bodies import read_form
from peerloan.service.problems import RequestError, is_api
from peerloan.service.tokens import Token, Tokens, TokensError, digest_of

log = logging.getLogger(__name__)
blueprint = Blueprint("callers", __name__)
# How often a worker looks whether the tokens changed: what is revoked is refused after this time.
_LOOK_SECONDS = 1.0
_BEARER = "Bearer "
_COOKIE = "peerloan_session"
_SESSION_SECONDS = 12 * 3600
_COMMAND = "peerloan token new NAME"
_CALLER = "peerloan.caller"
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="peerloan"'}

# A path of this site: nothing that a browser takes for another one, now or after it has dropped
# what no address may hold.
_OWN_PATH = re.compile(r"/(?!/)[!-\[\]-~]*")

_Page = tuple[str, int, dict[str, str]]
_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class _Known:
    """The tokens as they were when the folder was last read."""

    key: bytes
    by_digest: Mapping[bytes, Token]
    by_name: Mapping[str, Token]


class Callers:
    """The callers that are known now, by the tokens in a folder."""

    def __init__(self, tokens: Tokens, on_loopback: bool) -> None:
        self._tokens = tokens
        self._on_loopback = on_loopback
        self._state: tuple[int, ...] | None = None
        self._fault: str | None = None
        self._known: _Known | None = None
        self._look_at = 0.0

    @property
    def open(self) -> bool:
        """Whether nobody needs a token: none was ever made, and only this machine can ask."""
        self._look()
        return self._on_loopback and self._state is None and self._fault is None

    @property
    def any(self) -> bool:
        """Whether somebody has a token."""
        self._look()
        return self._known is not None and bool(self._known.by_name)

    def by_token(self, token: str) -> Token | None:
        """Whose token this is."""
        self._look()
        known = self._known
        # How long a look-up takes says something of the hashes alone, which nobody without the key
        # can choose.
        return known.by_digest.get(digest_of(known.key, token)) if known else None

    def session(self, token: Token) -> str:
        """What a browser keeps of a person who signed in: no token, and of use for hours only."""
        signer = self._signer()
        assert signer is not None  # noqa: S101  who has a token is known
        return str(signer.dumps([token.name, token.digest[:16]]))

    def by_session(self, session: str) -> Token | None:
        """Who signed in, if the token is still the same."""
        self._look()
        known, signer = self._known, self._signer()
        if known is None or signer is None:
            return None
        try:
            name, digest = signer.loads(session, max_age=_SESSION_SECONDS)
        except (BadSignature, ValueError, TypeError):
            return None
        token = known.by_name.get(name)
        same = token is not None and hmac.compare_digest(token.digest[:16], digest)
        return token if same else None

    def _signer(self) -> URLSafeTimedSerializer | None:
        known = self._known
        return URLSafeTimedSerializer(known.key, salt="session") if known else None

    def _look(self) -> None:
        """Read the tokens again if they changed; those that can't be read change nothing."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        try:
            state = self._tokens.state()
            if self._fault is None and state == self._state:
                return
            if state is None:
                self._known = None
            else:
                tokens = self._tokens.read()
                self._known = _Known(
                    self._tokens.key(),
                    {bytes.fromhex(each.digest): each for each in tokens},
                    {each.name: each for each in tokens},
                )
            self._state, self._fault = state, None
        except (OSError, TokensError, ValueError) as error:
            if str(error) != self._fault:
                log.error("tokens can't be read, those known before stay: %s", error)
            self._fault = str(error)


def register(app: Flask, tokens: Tokens, on_loopback: bool) -> None:
    """Ask every caller for a token, except for what is marked as free."""
    callers = Callers(tokens, on_loopback)
    app.extensions["callers"] = callers
    app.register_blueprint(blueprint)

    @app.before_request
    def guard() -> _Page | None:
        environ = request.environ
        token = _caller(callers, environ)
        if token is not None:
            environ[_CALLER] = token
            return None
        if callers.open or _is_free(app):
            return None
        if is_api(request.path):
            given = "HTTP_AUTHORIZATION" in environ
            raise RequestError(401, "Unauthorized", _wanted(callers, given), headers=_CHALLENGE)
        return _sign_in(request.full_path if request.method == "GET" else "/")

    @app.context_processor
    def who() -> dict[str, Any]:
        return {"caller": request.environ.get(_CALLER), "open_to_all": callers.open}


def free(view: _View) -> _View:
    """Mark a view that needs no token."""
    view.needs_no_token = True  # type: ignore[attr-defined]
    return view


def operator() -> str:
    """The name of the operator who calls; raises RequestError if it is none."""
    token: Token | None = request.environ.get(_CALLER)
    if token is not None and token.operator:
        return token.name
    given = "none" if token is None else f"that of {token.name}"
    raise RequestError(
        401 if token is None else 403,
        "Unauthorized" if token is None else "Forbidden",
        f"expected an operator's token, given {given}; make one with: {_COMMAND} --operator",
        headers=_CHALLENGE,
    )


@blueprint.post("/sign-in")
@free
def sign_in() -> Response | _Page:
    """Let a browser in with a token, and lead to the page that was asked for."""
    callers: Callers = current_app.extensions["callers"]
    form = read_form()
    target = form.get("next", "/")
    token = callers.by_token(form.get("token", "").strip())
    if token is None:
        return _sign_in(target, wrong=True)
    answer = redirect(target if _OWN_PATH.fullmatch(target) else "/", 303)
    answer.set_cookie(
        _COOKIE,
        callers.session(token),
        httponly=True,
        samesite="Strict",
        # In front of us, TLS has ended.
        secure=request.is_secure or request.headers.get("X-Forwarded-Proto") == "https",
    )
    return answer  # type: ignore[return-value]


@blueprint.post("/sign-out")
@free
def sign_out() -> Response:
    """Forget who signed in."""
    answer = redirect("/", 303)
    answer.delete_cookie(_COOKIE)
    return answer  # type: ignore[return-value]


def _caller(callers: Callers, environ: Mapping[str, Any]) -> Token | None:
    given: str | None = environ.get("HTTP_AUTHORIZATION")
    if given is not None:
        return callers.by_token(given[len(_BEARER) :]) if given.startswith(_BEARER) else None
    if _COOKIE in environ.get("HTTP_COOKIE", ""):
        return callers.by_session(request.cookies.get(_COOKIE, ""))
    return None


def _is_free(app: Flask) -> bool:
    endpoint = request.endpoint or ""
    # Styles, which the sign-in needs, are the same for everybody.
    return endpoint.rpartition(".")[2] == "static" or hasattr(
        app.view_functions.get(endpoint), "needs_no_token"
    )


def _wanted(callers: Callers, given: bool) -> str:
    if not callers.any:
        return f"expected a token, but nobody has one yet; make one with: {_COMMAND}"
    what = "a token that is not known here" if given else "none"
    return (
        f"expected a token in the head `Authorization: Bearer …`, given {what}; "
        f"make one with: {_COMMAND}"
    )


def _sign_in(target: str, wrong: bool = False) -> _Page:
    callers: Callers = current_app.extensions["callers"]
    page = render_template(
        "sign_in.html", wrong=wrong, target=target, any_token=callers.any, command=_COMMAND
    )
    return page, 401, _CHALLENGE
