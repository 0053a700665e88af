"""Sessions of people who signed in with a browser, as signed cookies.

A session expires after SESSION_SECONDS. The service does not store sessions, except those that were
ended before, as empty files in a folder that all workers and containers share. A file is removed
once its session has expired.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from flask import Request, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from peerloan import atomic_files
from peerloan.private_files import FILE_MODE, FOLDER_MODE
from peerloan.web.auth.tokens import Token

log = logging.getLogger(__name__)
SESSION_SECONDS = 12 * 3600
# Largest expected difference between the clocks of several machines.
_SLACK_SECONDS = 3600
_DIGEST = 16
_COOKIE = "peerloan_session"


class Session(NamedTuple):
    """A valid session: its reference to a token (see `token_of_session`), and its name."""

    token: tuple[str, str]
    name: str


def token_of_session(token: Token) -> tuple[str, str]:
    """Return how a session refers to its token: by name and the start of the token's hash.

    So a session does not become valid for a new token with the name of a revoked one.
    """
    return token.name, token.digest[:_DIGEST]


def read_cookie(request: Request) -> str:
    """Return the cookie value of a request's session; empty if it has none."""
    if _COOKIE not in request.environ.get(
        "HTTP_COOKIE", ""
    ):  # most requests: don't parse the others
        return ""
    return request.cookies.get(_COOKIE, "")


def set_cookie(response: Response, request: Request, session: str) -> None:
    """Set a session's cookie, which browsers send for requests of this site's pages only."""
    response.set_cookie(
        _COOKIE,
        session,
        path=request.root_path or "/",
        httponly=True,
        samesite="Strict",
        # If a proxy terminates TLS, the request comes as plain HTTP with this header.
        secure=request.is_secure or request.headers.get("X-Forwarded-Proto") == "https",
    )


def delete_cookie(response: Response, request: Request) -> None:
    """Delete a session's cookie, also one that was set before the path prefix was configured."""
    for path in {request.root_path or "/", "/"}:
        response.delete_cookie(_COOKIE, path=path)


class Sessions:
    """Begins, reads and ends sessions. Safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, key: bytes, token: Token) -> str:
        """Return the cookie value of a new session."""
        return str(_signer(key).dumps([*token_of_session(token), secrets.token_hex(8)]))

    def read(self, key: bytes, cookie: str) -> Session | None:
        """Return the session of a cookie value; None if it is invalid, expired or ended."""
        try:
            content, began = _signer(key).loads(
                cookie, max_age=SESSION_SECONDS, return_timestamp=True
            )
            # Cookies of the previous release lack the third part, which makes sessions unique.
            name, digest, *_ = content
        except (BadSignature, ValueError, TypeError):
            return None
        # Hash the content, not the cookie value: several values encode the same content.
        second = int(began.timestamp())
        hashed = hashlib.blake2b(repr((content, second)).encode(), digest_size=16)
        session = f"{second}-{hashed.hexdigest()}"
        return None if self._has_ended(session) else Session((name, digest), session)

    def end(self, session: Session) -> None:
        """End a session at once, for all copies of its cookie. Raises OSError."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            atomic_files.publish_file(self._folder / session.name, b"", FILE_MODE)
        before = time.time() - SESSION_SECONDS - _SLACK_SECONDS
        for path in self._folder.glob("[0-9]*-*"):
            if int(path.name.partition("-")[0]) < before:
                path.unlink(missing_ok=True)

    def _has_ended(self, session: str) -> bool:
        try:
            (self._folder / session).stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("the ended sessions can't be read, so all sessions are refused: %s", error)
        return True


def _signer(key: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt="session")
