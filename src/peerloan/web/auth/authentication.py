"""Authentication of callers: by a bearer token, or by the session of a person who signed in."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Flask, request

from peerloan.web.auth.csrf import refuse_other_sites
from peerloan.web.auth.endpoint_scopes import required_scopes
from peerloan.web.auth.loopback import names_loopback
from peerloan.web.auth.sessions import Sessions, read_cookie, token_of_session
from peerloan.web.auth.tokens import PROMOTE, SCOPES, Token, Tokens, TokensError, digest_of
from peerloan.web.http.problems import RequestError, wants_problem

log = logging.getLogger(__name__)
# Interval at which a worker checks for changed tokens: a revoked one is refused after it.
_CHECK_SECONDS = 1.0
TOKEN_COMMAND = "peerloan token new NAME"  # noqa: S105  a command, no password
_CALLER = "peerloan.caller"
# Prefixes of the headers that proxies and tunnels add.
_PROXY_HEADERS = (
    *("HTTP_FORWARDED", "HTTP_X_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA"),
    *("HTTP_CDN_LOOP", "HTTP_CF_"),
)
# An address in brackets or a name, with an optional port; `evil@localhost` does not match.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="peerloan"'}
# Any caller may learn that an address does not exist.
_ANY = frozenset(SCOPES)
# An endpoint without a guard is closed to everybody.
_NONE: frozenset[str] = frozenset()

Page = tuple[str, int, dict[str, str]]


@dataclass(frozen=True, slots=True)
class _TokenSnapshot:
    """The tokens at the last read of the folder; `state` is None if no token was ever made."""

    state: tuple[int, ...] | None = None
    fault: str | None = None
    key: bytes = b""
    by_digest: Mapping[bytes, Token] = field(default_factory=dict)
    by_session: Mapping[tuple[str, str], Token] = field(default_factory=dict)


class Authenticator:
    """Identifies callers by the tokens in a folder. Thread-safe."""

    def __init__(self, tokens: Tokens, sessions: Sessions, on_loopback: bool) -> None:
        self._tokens, self._sessions = tokens, sessions
        self._on_loopback = on_loopback
        self._snapshot = _TokenSnapshot()
        # Read before the first request. While one thread reads, others use the previous snapshot.
        self._check_at = 0.0
        self.snapshot()

    def snapshot(self) -> _TokenSnapshot:
        """Return the tokens, at most a second old.

        If the folder can't be read, this returns the previous tokens with the fault.
        """
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + _CHECK_SECONDS
            self._snapshot = self._read(self._snapshot)
        return self._snapshot

    def is_open(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request needs no token: none was ever made, and the caller is on this machine.

        A host name that resolves to this machine, or a proxy, may forward requests of anybody. Some
        proxies add no header but use HTTP/1.0, which is otherwise rare.
        """
        snapshot = self.snapshot()
        if not self._on_loopback or snapshot.state is not None or snapshot.fault is not None:
            return False
        # Gunicorn reports the older version as HTTP/1.0, Granian as HTTP/1.
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            return False
        host = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if host is None or not names_loopback((host[1] or host[2]).lower()):
            return False
        return not any(name.startswith(_PROXY_HEADERS) for name in environ)

    def is_trusted(self, environ: Mapping[str, Any]) -> bool:
        """Whether the caller has a token or needs none; also applies to public addresses."""
        return _CALLER in environ or self.is_open(environ)

    def by_token(self, token: str) -> Token | None:
        """Find a token; None if it is unknown."""
        snapshot = self.snapshot()
        # The look-up is safe from timing attacks: without the key nobody can choose the hashes.
        return snapshot.by_digest.get(digest_of(snapshot.key, token))

    def begin_session(self, token: Token) -> str:
        """Make a session for a browser: it contains no token and expires within hours."""
        return self._sessions.begin(self.snapshot().key, token)

    def by_session(self, session: str) -> Token | None:
        """Return the token of a session; None if the session is invalid or the token changed."""
        snapshot = self.snapshot()
        found = self._sessions.read(snapshot.key, session)
        return None if found is None else snapshot.by_session.get(found.token)

    def end_session(self, session: str) -> None:
        """End a session in every worker and for all copies of its cookie. Raises OSError.

        A session without a known token is ignored: without tokens anybody could sign one.
        """
        snapshot = self.snapshot()
        found = self._sessions.read(snapshot.key, session)
        if found is not None and found.token in snapshot.by_session:
            self._sessions.end(found)

    def _read(self, last: _TokenSnapshot) -> _TokenSnapshot:
        try:
            state = self._tokens.state()
            if last.fault is None and state == last.state:
                return last
            if state is None:
                if last.state is not None:
                    raise TokensError("they are gone, with their folder or its key")
                return _TokenSnapshot()
            tokens = self._tokens.read()
            self._leave_marker()
            return _TokenSnapshot(
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
            return _TokenSnapshot(last.state, fault, last.key, last.by_digest, last.by_session)

    def _leave_marker(self) -> None:
        try:
            self._tokens.leave_marker()
        except OSError as error:
            log.warning("that tokens were made can't be noted beside the seal: %s", error)


def register(app: Flask, authenticator: Authenticator, sign_in_page: Callable[[str], Page]) -> None:
    """Require a token with the endpoint's scope, except at public addresses.

    `sign_in_page` renders the page for a person without a session, given the requested page. Call
    this after all routes are registered. Raises UnguardedView if a route has no guard.
    """
    guards = required_scopes(app)

    @app.before_request
    def guard() -> Page | None:
        environ, rule = request.environ, request.url_rule
        scopes = _ANY if rule is None else guards.get(rule.endpoint, _NONE)
        caller = _authenticate(authenticator, environ)
        if caller is not None:
            environ[_CALLER] = caller
            if scopes is not None and scopes.isdisjoint(caller.scopes):
                raise _forbidden(caller, scopes)
            return None
        if scopes is None or authenticator.is_open(environ):
            return None
        if wants_problem(request.path):
            raise _unauthorized(authenticator.snapshot(), environ)
        is_page = request.method == "GET" and rule is not None
        return sign_in_page(request.full_path if is_page else "/")

    @app.context_processor
    def caller_of_page() -> dict[str, Any]:
        environ = request.environ
        caller = environ.get(_CALLER)
        return {"caller": caller, "open_here": caller is None and authenticator.is_open(environ)}


def caller_name(environ: Mapping[str, Any]) -> str:
    """Return the name of a request's caller; empty where no token is needed."""
    token: Token | None = environ.get(_CALLER)
    return "" if token is None else token.name


def only_caller(environ: Mapping[str, Any]) -> str | None:
    """Return the caller whose decisions alone a request may read and report on; None: all."""
    token: Token | None = environ.get(_CALLER)
    return None if token is None or "read" in token.scopes else token.name


def require_operator() -> str:
    """Return the name of the calling operator. Raises RequestError 401 or 403 for others."""
    token: Token | None = request.environ.get(_CALLER)
    if token is not None and token.operator:
        return token.name
    given = "none" if token is None else f"that of {token.name}"
    raise RequestError(
        401 if token is None else 403,
        "Unauthorized" if token is None else "Forbidden",
        f"expected an operator's token, given {given}; make one with: {TOKEN_COMMAND} --operator",
        headers=CHALLENGE,
    )


def _authenticate(authenticator: Authenticator, environ: Mapping[str, Any]) -> Token | None:
    """Return the token of this request's caller. Raises RequestError for another site's page."""
    token = _bearer(environ)
    if token is not None:
        return authenticator.by_token(token)
    refuse_other_sites(environ)
    session = read_cookie(request)
    return authenticator.by_session(session) if session else None


def _bearer(environ: Mapping[str, Any]) -> str | None:
    """Return the token in a request's Authorization header, if there is one."""
    given: str | None = environ.get("HTTP_AUTHORIZATION")
    if given is None or given[:7].lower() != "bearer ":
        return None
    return given[7:].strip()


def _forbidden(caller: Token, scopes: frozenset[str]) -> RequestError:
    """Return the problem of a caller whose token has none of the required scopes."""
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
        f"expected {needed}, given {given}; make one with: {TOKEN_COMMAND} {how}",
        headers={"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + header},
    )


def _unauthorized(snapshot: _TokenSnapshot, environ: Mapping[str, Any]) -> RequestError:
    if snapshot.fault is not None:
        detail = "the tokens can't be read here; the log says why"
        return RequestError(503, "Tokens Unreadable", detail, headers={"Retry-After": "5"})
    if not snapshot.by_digest:
        detail = f"expected a token, but nobody has one; make one with: {TOKEN_COMMAND}"
    else:
        what = "a token that is not known here"
        if _bearer(environ) is None:
            other = "HTTP_AUTHORIZATION" in environ
            what = "an Authorization that does not begin with Bearer" if other else "none"
        detail = (
            f"expected a token in the head `Authorization: Bearer …`, given {what}; "
            f"make one with: {TOKEN_COMMAND}"
        )
    return RequestError(401, "Unauthorized", detail, headers=CHALLENGE)
