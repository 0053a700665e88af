"""Who calls: a token in the request's head, or a person who signed in with one."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.exceptions import RequestEntityTooLarge

from peerloan.web.auth.endpoint_scopes import free, guards_of
from peerloan.web.auth.loopback import names_loopback
from peerloan.web.auth.sessions import Sessions, token_of_session
from peerloan.web.auth.tokens import PROMOTE, SCOPES, Token, Tokens, TokensError, digest_of
from peerloan.web.http import problems
from peerloan.web.http.problems import RequestError, wants_problem
from peerloan.web.http.request_body import read_form

log = logging.getLogger(__name__)
blueprint = Blueprint("callers", __name__)
# How often a worker looks whether the tokens changed: what is revoked is refused after this time.
_LOOK_SECONDS = 1.0
_COOKIE = "peerloan_session"
_COMMAND = "peerloan token new NAME"
_CALLER = "peerloan.caller"
# What proxies and tunnels say of whom they speak for.
_OF_PROXIES = (
    *("HTTP_FORWARDED", "HTTP_X_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA"),
    *("HTTP_CDN_LOOP", "HTTP_CF_"),
)
# Nothing but an address in brackets or a name, and a port: `evil@localhost` is none.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="peerloan"'}
# At what is no address, any caller learns that it is none.
_ANY = frozenset(SCOPES)
# An address that nobody thought of opens to nobody.
_NONE: frozenset[str] = frozenset()
_HALF_ENDED = (
    "This browser is signed out, but that can't be noted on the server now: a copy of its cookie "
    "holds for up to twelve hours. To end that, have the token revoked: peerloan token revoke NAME"
)
# Whoever it is may send this form.
_MOST_SIGN_IN_BYTES = 10_000
# A path below the prefix: nothing that a browser takes for another site, now or after it has
# dropped what no address may hold, and no dot segment, which could lead out of the prefix.
_OWN_PATH = re.compile(r"(?!.*/(\.|%2[eE]){1,2}([/?#]|$))/(?!/)[!-\[\]-~]{0,2000}")

_Page = tuple[str, int, dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found when the folder was last read; `state` is None while no token was made."""

    state: tuple[int, ...] | None = None
    fault: str | None = None
    key: bytes = b""
    by_digest: Mapping[bytes, Token] = field(default_factory=dict)
    by_session: Mapping[tuple[str, str], Token] = field(default_factory=dict)


class Callers:
    """The callers that are known now, by the tokens in a folder."""

    def __init__(self, tokens: Tokens, sessions: Sessions, on_loopback: bool) -> None:
        self._tokens, self._sessions = tokens, sessions
        self._on_loopback = on_loopback
        self._last = _Known()
        # Before anybody asks: a thread that finds a look begun goes by what was seen before.
        self._look_at = 0.0
        self.known()

    def known(self) -> _Known:
        """What is known of the tokens, a second old at most; what can't be read changes nothing."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            self._last = self._look(self._last)
        return self._last

    def is_open(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request needs no token: none was ever made, and this machine itself asks.

        A name that leads here from elsewhere, or a proxy, may stand for anybody. Some
        proxies add nothing, but speak HTTP/1.0, as hardly anybody else does.
        """
        known = self.known()
        if not self._on_loopback or known.state is not None or known.fault is not None:
            return False
        # The older one is HTTP/1.0 to Gunicorn, and HTTP/1 to Granian.
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            return False
        host = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if host is None or not names_loopback((host[1] or host[2]).lower()):
            return False
        return not any(name.startswith(_OF_PROXIES) for name in environ)

    def by_token(self, token: str) -> Token | None:
        """Whose token this is."""
        known = self.known()
        # How long a look-up takes says something of the hashes alone, which nobody without the key
        # can choose.
        return known.by_digest.get(digest_of(known.key, token))

    def begin_session(self, token: Token) -> str:
        """What a browser keeps of a person who signed in: no token, and of use for hours only."""
        return self._sessions.begin(self.known().key, token)

    def by_session(self, kept: str) -> Token | None:
        """Who signed in, if the session holds and the token is still the same."""
        known = self.known()
        session = self._sessions.read(known.key, kept)
        return None if session is None else known.by_session.get(session.token)

    def end_session(self, kept: str) -> None:
        """End a session in every worker, for whoever has a copy; raises OSError.

        One of nobody is left alone: where there is no token, anybody could sign it.
        """
        known = self.known()
        session = self._sessions.read(known.key, kept)
        if session is not None and session.token in known.by_session:
            self._sessions.end(session)

    def _look(self, last: _Known) -> _Known:
        try:
            state = self._tokens.state()
            if last.fault is None and state == last.state:
                return last
            if state is None:
                if last.state is not None:
                    raise TokensError("they are gone, with their folder or its key")
                return _Known()
            tokens = self._tokens.read()
            self._leave_marker()
            return _Known(
                state,
                None,
                self._tokens.key(),
                {bytes.fromhex(each.digest): each for each in tokens},
                {token_of_session(each): each for each in tokens},
            )
        except (OSError, ValueError) as error:
            fault = str(error)
            if fault != last.fault:
                log.error("tokens can't be read, those known before stay: %s", fault)
            return _Known(last.state, fault, last.key, last.by_digest, last.by_session)

    def _leave_marker(self) -> None:
        try:
            self._tokens.leave_marker()
        except OSError as error:
            log.warning("that tokens were made can't be noted beside the seal: %s", error)


def register(app: Flask, tokens: Tokens, sessions: Sessions, on_loopback: bool) -> None:
    """Ask every caller for a token with the scope of what is asked for, except for what is free.

    To be called once every address is there; raises GuardError if one says nothing of who may ask.
    """
    callers = Callers(tokens, sessions, on_loopback)
    app.extensions["callers"] = callers
    app.register_blueprint(blueprint)
    guards = guards_of(app)

    @app.before_request
    def guard() -> _Page | None:
        environ = request.environ
        rule = request.url_rule
        scopes = _ANY if rule is None else guards.get(rule.endpoint, _NONE)
        token = _bearer(environ)
        if token is not None:
            caller = callers.by_token(token)
        else:
            _refuse_other_sites(environ)
            session = _COOKIE in environ.get("HTTP_COOKIE", "") and request.cookies.get(_COOKIE)
            caller = callers.by_session(session) if session else None
        if caller is not None:
            environ[_CALLER] = caller
            if scopes is not None and scopes.isdisjoint(caller.scopes):
                raise _forbidden(caller, scopes)
            return None
        if scopes is None or callers.is_open(environ):
            return None
        if wants_problem(request.path):
            raise _unauthorized(callers.known(), environ)
        shows = request.method == "GET" and request.url_rule is not None
        return _sign_in(request.full_path if shows else "/")

    @app.context_processor
    def who() -> dict[str, Any]:
        environ = request.environ
        caller = environ.get(_CALLER)
        return {"caller": caller, "open_here": caller is None and callers.is_open(environ)}


def caller_name(environ: Mapping[str, Any]) -> str:
    """The name of who makes a request; empty where nobody needs one."""
    token: Token | None = environ.get(_CALLER)
    return "" if token is None else token.name


def only_caller(environ: Mapping[str, Any]) -> str | None:
    """The caller whose decisions alone a request may read and report on; None: everybody's."""
    token: Token | None = environ.get(_CALLER)
    return None if token is None or "read" in token.scopes else token.name


def is_trusted(environ: Mapping[str, Any]) -> bool:
    """Whether who makes a request, of a free address too, has a token or needs none."""
    callers: Callers = current_app.extensions["callers"]
    return _CALLER in environ or callers.is_open(environ)


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
    request.max_content_length = _MOST_SIGN_IN_BYTES
    try:
        form = read_form()
    except RequestEntityTooLarge:
        raise RequestError(413, "Content Too Large", "Expected a token, given more.") from None
    target = form.get("next", "/")
    token = callers.by_token(form.get("token", "").strip())
    if token is None:
        return _sign_in(target, wrong=True)
    answer = redirect(request.root_path + _own(target), 303)
    answer.set_cookie(
        _COOKIE,
        callers.begin_session(token),
        path=request.root_path or "/",
        httponly=True,
        samesite="Strict",
        # In front of us, TLS has ended.
        secure=request.is_secure or request.headers.get("X-Forwarded-Proto") == "https",
    )
    return answer  # type: ignore[return-value]


@blueprint.post("/sign-out")
@free
def sign_out() -> Response:
    """End the session, here and for whoever has a copy of what the browser kept."""
    callers: Callers = current_app.extensions["callers"]
    answer: Response = redirect(url_for("pages.empty_form"), 303)  # type: ignore[assignment]
    try:
        callers.end_session(request.cookies.get(_COOKIE, ""))
    except OSError as error:
        log.error("a session can't be ended: %s", error)
        answer = problems.answer(RequestError(503, "Not Signed Out Everywhere", _HALF_ENDED))
    # Also what was kept before there was a prefix.
    for path in {request.root_path or "/", "/"}:
        answer.delete_cookie(_COOKIE, path=path)
    return answer


def _bearer(environ: Mapping[str, Any]) -> str | None:
    """The token in a request's head, if there is one."""
    given: str | None = environ.get("HTTP_AUTHORIZATION")
    if given is None or given[:7].lower() != "bearer ":
        return None
    return given[7:].strip()


def _refuse_other_sites(environ: Mapping[str, Any]) -> None:
    """Raise RequestError if a page of another site makes a browser change something here.

    A browser sends who is signed in along; and on loopback it needs nobody.
    """
    if environ["REQUEST_METHOD"] in ("GET", "HEAD", "OPTIONS"):
        return
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if site is not None:
        own = site in ("same-origin", "none")
    else:
        own = origin is None or _split(origin).netloc == environ.get("HTTP_HOST")
    if not own:
        raise RequestError(403, "Forbidden", "expected a page of this site, given another one's")


def _split(address: str) -> SplitResult:
    """An address in its parts, which are empty if it is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _forbidden(caller: Token, scopes: frozenset[str]) -> RequestError:
    """The problem of a caller whose token has none of the scopes of what it asks for."""
    if PROMOTE in scopes or not scopes:
        needed, how, header = "an operator's token", "--operator", ""
    else:
        named = [scope for scope in SCOPES if scope in scopes]
        needed = f"a token with the scope {' or '.join(named)}"
        how, header = f"--scope {named[0]}", f', error="insufficient_scope", scope="{named[0]}"'
    has = [scope for scope in SCOPES if scope in caller.scopes]
    given = f"that of {caller.name}"
    if header:
        given += f", which has {', '.join(has) or 'none'}"
    return RequestError(
        403,
        "Forbidden",
        f"expected {needed}, given {given}; make one with: {_COMMAND} {how}",
        headers={"WWW-Authenticate": _CHALLENGE["WWW-Authenticate"] + header},
    )


def _unauthorized(known: _Known, environ: Mapping[str, Any]) -> RequestError:
    if known.fault is not None:
        detail = "the tokens can't be read here; the log says why"
        return RequestError(503, "Tokens Unreadable", detail, headers={"Retry-After": "5"})
    if not known.by_digest:
        detail = f"expected a token, but nobody has one; make one with: {_COMMAND}"
    else:
        what = "a token that is not known here"
        if _bearer(environ) is None:
            other = "HTTP_AUTHORIZATION" in environ
            what = "an Authorization that does not begin with Bearer" if other else "none"
        detail = (
            f"expected a token in the head `Authorization: Bearer …`, given {what}; "
            f"make one with: {_COMMAND}"
        )
    return RequestError(401, "Unauthorized", detail, headers=_CHALLENGE)


def _own(target: str) -> str:
    return target if _OWN_PATH.fullmatch(target) else "/"


def _sign_in(target: str, wrong: bool = False) -> _Page:
    known = current_app.extensions["callers"].known()
    page = render_template(
        "sign_in.html", wrong=wrong, target=_own(target), known=known, command=_COMMAND
    )
    return page, 401, _CHALLENGE
