"""Authentication of callers: by a bearer token, or by the session of a signed-in person."""

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
# Interval at which a process checks for changed tokens. So a revoked token works this much longer.
_CHECK_SECONDS = 1.0
TOKEN_COMMAND = "peerloan token new NAME"  # noqa: S105  a command, no password
_CALLER = "peerloan.caller"
# Prefixes of the headers that proxies and tunnels add.
_PROXY_HEADERS = (
    *("HTTP_FORWARDED", "HTTP_X_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA"),
    *("HTTP_CDN_LOOP", "HTTP_CF_"),
)
# A Host header: an address in brackets or a name, with an optional port. `evil@localhost` does not
# match.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="peerloan"'}
# Any scope is enough to learn that an address does not exist.
_ANY_SCOPE = frozenset(SCOPES)
# No scope is enough for an endpoint without a guard.
_NO_SCOPE: frozenset[str] = frozenset()

# A page's content, status and headers.
Page = tuple[str, int, dict[str, str]]


@dataclass(frozen=True, slots=True)
class _TokenSnapshot:
    """The tokens as they were last read.

    `state` identifies the content of the folder; None if no token was ever made. `fault` is why the
    last read failed; then the tokens are those of the read before.
    """

    state: tuple[int, ...] | None = None
    fault: str | None = None
    key: bytes = b""
    by_digest: Mapping[bytes, Token] = field(default_factory=dict)
    by_session: Mapping[tuple[str, str], Token] = field(default_factory=dict)


class Authenticator:
    """Identifies callers by the tokens in a folder. Thread-safe."""

    def __init__(
        self,
        tokens: Tokens,
        sessions: Sessions,
        on_loopback: bool,
        check_seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._tokens, self._sessions = tokens, sessions
        self._check_seconds = check_seconds
        self._on_loopback = on_loopback
        self._snapshot = _TokenSnapshot()
        # Read the tokens now, before the first request. Later, while one thread reads them, the
        # other threads use the previous snapshot.
        self._check_at = 0.0
        self.snapshot()

    def snapshot(self) -> _TokenSnapshot:
        """Return the tokens, which were read at most a second ago.

        If the folder can't be read, the snapshot has the previous tokens and the fault.
        """
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + self._check_seconds
            self._snapshot = self._read(self._snapshot)
        return self._snapshot

    def is_open(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request needs no token: none was ever made, and the caller is on this machine.

        Requests that may come from elsewhere need one: through a proxy (its headers or HTTP/1.0,
        which clients rarely use), or by a host name that somebody made resolve to this machine.
        """
        snapshot = self.snapshot()
        if not self._on_loopback or snapshot.state is not None or snapshot.fault is not None:
            return False
        # For HTTP/1.0, Gunicorn has "HTTP/1.0" here, and Granian has "HTTP/1".
        if environ.get("SERVER_PROTOCOL") != "HTTP/1.1":
            return False
        host = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if host is None or not names_loopback((host[1] or host[2]).lower()):
            return False
        return not any(name.startswith(_PROXY_HEADERS) for name in environ)

    def is_trusted(self, environ: Mapping[str, Any]) -> bool:
        """Whether the caller has a token or needs none. Public endpoints check it for details."""
        return _CALLER in environ or self.is_open(environ)

    def by_token(self, token: str) -> Token | None:
        """Return the entry of a token; None if the token is unknown."""
        snapshot = self.snapshot()
        # Timing attacks don't work on this look-up: without the key, nobody can choose the hash.
        return snapshot.by_digest.get(digest_of(snapshot.key, token))

    def begin_session(self, token: Token) -> str:
        """Begin a session, and return its cookie value, which does not contain the token."""
        return self._sessions.begin(self.snapshot().key, token)

    def by_session(self, session: str) -> Token | None:
        """Return the token of a session; None if the session or its token is no longer valid."""
        snapshot = self.snapshot()
        parsed = self._sessions.read(snapshot.key, session)
        return None if parsed is None else snapshot.by_session.get(parsed.token)

    def end_session(self, session: str) -> None:
        """End a session, for all workers and all copies of its cookie. Raises OSError.

        A session without an existing token is ignored. Otherwise, while no token exists, anybody
        could sign sessions and fill the folder of ended ones.
        """
        snapshot = self.snapshot()
        parsed = self._sessions.read(snapshot.key, session)
        if parsed is not None and parsed.token in snapshot.by_session:
            self._sessions.end(parsed)

    def _read(self, last: _TokenSnapshot) -> _TokenSnapshot:
        """Read the tokens if they have changed since the last snapshot."""
        try:
            state = self._tokens.state()
            if last.fault is None and state == last.state:
                return last
            if state is None:
                if last.state is not None:
                    raise TokensError("the folder of the tokens, or its key, no longer exists")
                return _TokenSnapshot()
            tokens = self._tokens.read()
            self._leave_marker()
            return _TokenSnapshot(
                state,
                None,
                self._tokens.key(),
                {bytes.fromhex(token.digest): token for token in tokens},
                {token_of_session(token): token for token in tokens},
            )
        except (OSError, ValueError) as error:
            fault = str(error)
            if fault != last.fault:
                log.error("the tokens can't be read; the previous ones stay valid: %s", fault)
            return _TokenSnapshot(last.state, fault, last.key, last.by_digest, last.by_session)

    def _leave_marker(self) -> None:
        try:
            self._tokens.leave_marker()
        except OSError as error:
            log.warning("the marker that tokens were made can't be written: %s", error)


def register(app: Flask, authenticator: Authenticator, sign_in_page: Callable[[str], Page]) -> None:
    """Require a token with a scope of the endpoint, except at public endpoints.

    `sign_in_page` renders the page for a person without a session; its argument is the path of the
    requested page. Call this after all routes are registered. Raises UnguardedView if a route has
    no guard.
    """
    guards = required_scopes(app)

    @app.before_request
    def guard() -> Page | None:
        environ, rule = request.environ, request.url_rule
        scopes = _ANY_SCOPE if rule is None else guards.get(rule.endpoint, _NO_SCOPE)
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
    """Return the name of a request's caller; empty if the request needed no token."""
    token: Token | None = environ.get(_CALLER)
    return "" if token is None else token.name


def only_caller(environ: Mapping[str, Any]) -> str | None:
    """Return whose decisions the caller may read and report on; None means all decisions.

    A caller without the scope `read` is limited to the decisions that it requested.
    """
    token: Token | None = environ.get(_CALLER)
    return None if token is None or "read" in token.scopes else token.name


def require_operator() -> str:
    """Return the name of the calling operator. Raises RequestError 401 or 403 for others."""
    token: Token | None = request.environ.get(_CALLER)
    if token is not None and token.operator:
        return token.name
    given = "none" if token is None else f"the token of {token.name}"
    raise RequestError(
        401 if token is None else 403,
        "Unauthorized" if token is None else "Forbidden",
        f"expected an operator's token, given {given}; make one with: {TOKEN_COMMAND} --operator",
        headers=CHALLENGE,
    )


def _authenticate(authenticator: Authenticator, environ: Mapping[str, Any]) -> Token | None:
    """Return the token of this request's caller, if it is known.

    Raises RequestError 403 if a page of another site made the browser send the request.
    """
    token = _bearer(environ)
    if token is not None:
        return authenticator.by_token(token)
    refuse_other_sites(environ)
    session = read_cookie(request)
    return authenticator.by_session(session) if session else None


def _bearer(environ: Mapping[str, Any]) -> str | None:
    """Return the token in a request's Authorization header, if there is one."""
    header: str | None = environ.get("HTTP_AUTHORIZATION")
    if header is None or header[:7].lower() != "bearer ":
        return None
    return header[7:].strip()


def _forbidden(caller: Token, scopes: frozenset[str]) -> RequestError:
    """Return the error of a caller whose token has none of the required scopes."""
    if PROMOTE in scopes or not scopes:
        expected, option, challenge = "an operator's token", "--operator", ""
    else:
        names = [scope for scope in SCOPES if scope in scopes]
        expected = f"a token with the scope {' or '.join(names)}"
        option = f"--scope {names[0]}"
        challenge = f', error="insufficient_scope", scope="{names[0]}"'
    given = f"the token of {caller.name}"
    if challenge:
        caller_scopes = [scope for scope in SCOPES if scope in caller.scopes]
        given += f", which has {', '.join(caller_scopes) or 'none'}"
    return RequestError(
        403,
        "Forbidden",
        f"expected {expected}, given {given}; make one with: {TOKEN_COMMAND} {option}",
        headers={"WWW-Authenticate": CHALLENGE["WWW-Authenticate"] + challenge},
    )


def _unauthorized(snapshot: _TokenSnapshot, environ: Mapping[str, Any]) -> RequestError:
    """Return the error of a program without a valid token."""
    if snapshot.fault is not None:
        detail = "the tokens can't be read; the log has the reason"
        return RequestError(503, "Tokens Unreadable", detail, headers={"Retry-After": "5"})
    if not snapshot.by_digest:
        detail = f"expected a token, but none exists yet; make one with: {TOKEN_COMMAND}"
    else:
        given = "an unknown token"
        if _bearer(environ) is None:
            has_header = "HTTP_AUTHORIZATION" in environ
            given = "one that does not begin with Bearer" if has_header else "none"
        detail = (
            f"expected a token in the header `Authorization: Bearer …`, given {given}; "
            f"make one with: {TOKEN_COMMAND}"
        )
    return RequestError(401, "Unauthorized", detail, headers=CHALLENGE)
