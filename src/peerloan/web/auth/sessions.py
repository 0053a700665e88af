"""Sessions of people who signed in with a browser: a signed cookie that is valid until it ends.

The browser stores the cookie. The service stores only the ended sessions, as empty files in a
folder that all workers and containers share. A file is removed once its session would have expired
anyway.
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
# Largest difference between the clocks of several machines.
_SLACK_SECONDS = 3600
_DIGEST = 16
_COOKIE = "peerloan_session"


class Session(NamedTuple):
    """A session: the token's name and the start of its hash, and the session's own name."""

    token: tuple[str, str]
    name: str


def token_of_session(token: Token) -> tuple[str, str]:
    """Return a session's reference to its token; another token of the same name differs."""
    return token.name, token.digest[:_DIGEST]


def read_cookie(request: Request) -> str:
    """Return the session in a request's cookie; empty without one."""
    if _COOKIE not in request.environ.get("HTTP_COOKIE", ""):  # most requests: nothing to parse
        return ""
    return request.cookies.get(_COOKIE, "")


def set_cookie(response: Response, request: Request, session: str) -> None:
    """Set a session's cookie, for this site's own pages only."""
    response.set_cookie(
        _COOKIE,
        session,
        path=request.root_path or "/",
        httponly=True,
        samesite="Strict",
        # A proxy in front of the service may have terminated TLS.
        secure=request.is_secure or request.headers.get("X-Forwarded-Proto") == "https",
    )


def delete_cookie(response: Response, request: Request) -> None:
    """Delete a session's cookie, also one from before there was a path prefix."""
    for path in {request.root_path or "/", "/"}:
        response.delete_cookie(_COOKIE, path=path)


class Sessions:
    """Makes, reads and ends sessions. Safe for threads and processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, key: bytes, token: Token) -> str:
        """Make the cookie value of a new session."""
        return str(_signer(key).dumps([*token_of_session(token), secrets.token_hex(8)]))

    def read(self, key: bytes, kept: str) -> Session | None:
        """Return the session of a cookie value, if it is valid."""
        try:
            said, began = _signer(key).loads(kept, max_age=SESSION_SECONDS, return_timestamp=True)
            # Cookies of the previous release lack the third part, which makes sessions unique.
            name, digest, *_ = said
        except (BadSignature, ValueError, TypeError):
            return None
        # Hash the signed content, not the text: one content has several encodings.
        second = int(began.timestamp())
        hashed = hashlib.blake2b(repr((said, second)).encode(), digest_size=16)
        session = f"{second}-{hashed.hexdigest()}"
        return None if self._has_ended(session) else Session((name, digest), session)

    def end(self, session: Session) -> None:
        """End a session at once for all copies of its cookie. Raises OSError."""
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
            log.error("sessions that ended can't be read, so none holds: %s", error)
        return True


def _signer(key: bytes) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(key, salt="session")
