"""API tokens: who may call, kept in a folder as keyed hashes.

`tokens.json` names each caller with the keyed hash of its token, and `key` is the key: neither
shows a token, and without the key nobody can make an entry. The folder is written by
`peerloan token` and only read by the service.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# So that who finds a token somewhere, or searches for lost ones, sees what it is.
_PREFIX = "peerloan_"
_KEY_BYTES = 32


class TokensError(ValueError):
    """Something that can't be done with the tokens, and why."""


class Token(msgspec.Struct, frozen=True):
    """A caller's token: its name, whether it may change which model serves, and its hash."""

    name: str
    operator: bool
    created: str
    digest: str


class _File(msgspec.Struct, frozen=True):
    format: Literal[1]
    tokens: tuple[Token, ...]


class Tokens:
    """The tokens in a folder; the first one makes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "tokens.json"
        self._key_file = folder / "key"

    def state(self) -> tuple[int, ...] | None:
        """What changes whenever the tokens do; None while none was ever made.

        Raises OSError or TokensError where that can't be told.
        """
        try:
            status = self._file.stat()
        except FileNotFoundError:
            if self._key_file.exists():
                raise self._lost() from None
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def read(self) -> tuple[Token, ...]:
        """Every token, in the order in which they were made; raises TokensError."""
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=_File).tokens
        except FileNotFoundError:
            if self._key_file.exists():
                raise self._lost() from None
            return ()
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            raise TokensError(f"{self._file} can't be read: {_why(error)}") from None

    def key(self) -> bytes:
        """The key of the hashes; raises TokensError."""
        try:
            key = bytes.fromhex(self._key_file.read_text("ascii"))
        except (OSError, ValueError) as error:
            raise TokensError(f"{self._key_file} can't be read: {_why(error)}") from None
        if len(key) != _KEY_BYTES:
            raise TokensError(f"{self._key_file} can't be read: expected {_KEY_BYTES} bytes")
        return key

    def new(self, name: str, operator: bool) -> str:
        """Make a token for a caller and return it: it is kept nowhere. Raises TokensError."""
        if not _NAME.fullmatch(name):
            raise TokensError(
                f"{name!r} can't be a name: expected at most 64 letters, digits and . _ @ -, "
                "a letter or digit first"
            )
        with self._changing() as tokens:
            if any(each.name == name for each in tokens):
                raise TokensError(f"{name} has a token already; revoke it first, or choose a name")
            if not tokens and not self._key_file.exists():
                self._write(self._key_file, secrets.token_bytes(_KEY_BYTES).hex().encode())
            token = _PREFIX + secrets.token_urlsafe(32)
            digest = digest_of(self.key(), token).hex()
            created = datetime.now(UTC).isoformat(timespec="seconds")
            tokens.append(Token(name, operator, created, digest))
        return token

    def revoke(self, name: str) -> None:
        """Take a caller's token back; raises TokensError."""
        with self._changing() as tokens:
            kept = [each for each in tokens if each.name != name]
            if len(kept) == len(tokens):
                known = ", ".join(each.name for each in tokens) or "none"
                raise TokensError(f"no token of {name!r} (known: {known})")
            tokens[:] = kept

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all, for the folder's owner alone."""
        incoming = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            with open(incoming, "xb", opener=_for_owner) as file:
                if os.geteuid() == 0:  # who serves may be another, and reads it
                    owner = os.fstat(folder)
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            incoming.replace(path)
            os.fsync(folder)
        finally:
            os.close(folder)
            incoming.unlink(missing_ok=True)

    def _lost(self) -> TokensError:
        return TokensError(
            f"{self._file} can't be read: it is gone, but {self._key_file} is there; restore it, "
            "or remove that one too to begin anew"
        )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed by one process at a time; written if nothing is raised."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (self._folder / ".lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tokens = list(self.read())
                yield tokens
                content = msgspec.json.encode(_File(1, tuple(tokens)))
                self._write(self._file, msgspec.json.format(content, indent=1))
        except OSError as error:
            where = error.filename or self._folder
            raise TokensError(f"{where}: can't be written: {_why(error)}") from None


def digest_of(key: bytes, token: str) -> bytes:
    """The keyed hash of a token (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(token.encode(), key=key, digest_size=32).digest()


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
