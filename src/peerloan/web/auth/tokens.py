"""API tokens of callers, stored in a folder as keyed hashes.

`tokens.json` has the name of each caller and the keyed hash of its token; the file `key` has the
key. Neither file reveals a token, and nobody can make an entry without the key. Tokens with limited
scopes are in `scoped.json`: an earlier release without scopes does not read that file, and so
refuses these tokens. `peerloan token` writes the folder; the service only reads it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar, get_args

import msgspec

from peerloan import atomic_files, private_files
from peerloan.errors import PeerLoanError
from peerloan.regular_files import read_regular_file, read_regular_text

Scope = Literal["predict", "outcomes", "read", "metrics"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
# The scope that only operators have: promote a model.
PROMOTE = "promote"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# Tokens begin with this prefix, so that people and secret scanners recognize them.
_PREFIX = "peerloan_"
_KEY_BYTES = 32
# Largest size of a file. A token takes about 200 bytes.
_MAX_BYTES = 16_000_000
_MARKER_TEXT = (
    b"API tokens were made, so the service requires one even if their folder is lost.\n"
    b"Remove this file to start again without tokens.\n"
)


class TokensError(PeerLoanError, ValueError):
    """The tokens can't be read or changed. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Token:
    """A caller's token: the caller's name, the scopes, the time of creation, and the keyed hash."""

    name: str
    scopes: frozenset[str]
    created: str
    digest: str

    @property
    def operator(self) -> bool:
        """Whether the token may promote a model version."""
        return PROMOTE in self.scopes


class _Plain(msgspec.Struct, frozen=True):
    """An entry of `tokens.json`: a token with all scopes; an operator's may promote too."""

    name: str
    operator: bool
    created: str
    digest: str

    def token(self) -> Token:
        scopes = frozenset([*SCOPES, PROMOTE] if self.operator else SCOPES)
        return Token(self.name, scopes, self.created, self.digest)


class _Scoped(msgspec.Struct, frozen=True):
    """An entry of `scoped.json`: a token with some scopes; unknown scopes have no effect."""

    name: str
    scopes: tuple[str, ...]
    created: str
    digest: str

    def token(self) -> Token:
        # The scope `promote` has no effect in this file: only operators have it.
        scopes = frozenset(SCOPES).intersection(self.scopes)
        return Token(self.name, scopes, self.created, self.digest)


_Entry = TypeVar("_Entry", _Plain, _Scoped)


class _File(msgspec.Struct, Generic[_Entry], frozen=True):
    format: Literal[1]
    tokens: tuple[_Entry, ...]


class Tokens:
    """The tokens in a folder. The first token creates the folder.

    Changes lock the folder, so several processes may make and revoke tokens at once.
    """

    def __init__(self, folder: Path, marker: Path | None = None) -> None:
        """Use a folder. `marker` is a file outside of it that exists once a token was made.

        The marker distinguishes a folder that was lost from one that never existed.
        """
        self._folder, self._marker = folder, marker
        self._file = folder / "tokens.json"
        self._scoped_file = folder / "scoped.json"
        self._key_file = folder / "key"

    def state(self) -> tuple[int, ...] | None:
        """Return a value that changes whenever the tokens change; None if none was ever made.

        Raises OSError or TokensError if the folder can't be read.
        """
        self._refuse_open_modes()
        state: list[int] = []
        for path in (self._file, self._scoped_file):
            try:
                status = path.stat()
            except FileNotFoundError:
                if path == self._file:
                    self._refuse_lost_tokens()
                    return None
            else:
                state += (status.st_ino, status.st_mtime_ns, status.st_size)
        return tuple(state)

    def read(self) -> tuple[Token, ...]:
        """Read all tokens, in order of creation. Raises TokensError."""
        plain, scoped = self._read()
        tokens = [*(entry.token() for entry in plain), *(entry.token() for entry in scoped)]
        return tuple(sorted(tokens, key=lambda token: token.created))

    def key(self) -> bytes:
        """Read the key of the hashes. Raises TokensError."""
        try:
            key = bytes.fromhex(read_regular_text(self._key_file, _MAX_BYTES))
        except (OSError, ValueError) as error:
            raise TokensError(f"{self._key_file} can't be read: {_reason(error)}") from None
        if len(key) != _KEY_BYTES:
            raise TokensError(f"{self._key_file} can't be read: expected {_KEY_BYTES} bytes")
        return key

    def new(self, name: str, operator: bool = False, scopes: Sequence[Scope] = ()) -> str:
        """Make a token for a caller and return it. Only its hash is stored. Raises TokensError.

        Without `scopes`, the token has all scopes. An operator's token may also promote.
        """
        if not _NAME.fullmatch(name):
            raise TokensError(
                f"{name!r} is not a valid name: expected at most 64 letters, digits and . _ @ -, "
                "with a letter or digit first"
            )
        with self._changing() as (plain, scoped):
            if name in _names(plain, scoped):
                raise TokensError(
                    f"{name} already has a token; revoke it first, or choose another name"
                )
            if not plain and not scoped and not self._key_file.exists():
                self._write(self._key_file, secrets.token_bytes(_KEY_BYTES).hex().encode())
            token = _PREFIX + secrets.token_urlsafe(32)
            digest = digest_of(self.key(), token).hex()
            created = datetime.now(UTC).isoformat(timespec="seconds")
            if scopes:
                in_order = tuple(scope for scope in SCOPES if scope in scopes)
                scoped.append(_Scoped(name, in_order, created, digest))
            else:
                plain.append(_Plain(name, operator, created, digest))
        # The command may run as root, and root must not create a folder of the service's user.
        if self._marker is not None and self._marker.parent.is_dir():
            with contextlib.suppress(OSError):  # the service will write the marker
                self.leave_marker()
        return token

    def revoke(self, name: str) -> None:
        """Revoke a caller's token. Raises TokensError."""
        with self._changing() as (plain, scoped):
            names = _names(plain, scoped)
            if name not in names:
                raise TokensError(
                    f"{name!r} has no token; callers with one: {', '.join(names) or 'none'}"
                )
            plain[:] = [entry for entry in plain if entry.name != name]
            scoped[:] = [entry for entry in scoped if entry.name != name]

    def leave_marker(self) -> None:
        """Create the marker, unless it exists. Raises OSError."""
        if self._marker is not None and not self._marker.exists():
            self._marker.parent.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another process was first
                atomic_files.publish_file(self._marker, _MARKER_TEXT, private_files.FILE_MODE)

    def _read(self) -> tuple[list[_Plain], list[_Scoped]]:
        self._refuse_open_modes()
        plain = _decode(self._file, _File[_Plain])
        if plain is None:
            self._refuse_lost_tokens()
            return [], []
        scoped = _decode(self._scoped_file, _File[_Scoped])
        return list(plain.tokens), list(scoped.tokens if scoped else ())

    def _refuse_open_modes(self) -> None:
        """Raise TokensError if other users of this machine could make tokens or sign sessions.

        Permissions of the group are allowed, because volumes may need them.
        """
        secret = (self._key_file, self._file, self._scoped_file)
        for path, refused in ((self._folder, 0o002), *((path, 0o007) for path in secret)):
            try:
                mode = path.stat().st_mode & 0o7777
            except FileNotFoundError:
                continue
            if mode & refused:
                may = "written to" if mode & 0o002 else "read"
                raise TokensError(
                    f"{path} can be {may} by every user of this machine (mode {mode:04o}): "
                    "check who has a token (peerloan token list), then run: "
                    f"chmod o-{'w' if refused == 0o002 else 'rwx'} {path}"
                )

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file atomically, readable by the folder's owner only."""
        incoming = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            with open(incoming, "xb", opener=private_files.opener) as file:
                if os.geteuid() == 0:  # the service may run as another user, who reads the file
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

    def _refuse_lost_tokens(self) -> None:
        """Raise TokensError if tokens were made, although their file does not exist."""
        if self._key_file.exists():
            raise TokensError(
                f"{self._file} does not exist, but {self._key_file} does; restore the first file, "
                "or remove the second one to start again without tokens"
            )
        if self._marker is not None and self._marker.exists():
            raise TokensError(
                f"{self._folder} has no tokens, but {self._marker} records that some were made; "
                "restore the folder, or remove that file to start again without tokens"
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[list[_Plain], list[_Scoped]]]:
        """Lock the folder and yield its entries; write them afterwards if no error was raised."""
        try:
            self._folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            with open(self._folder / ".lock", "wb", opener=private_files.opener) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                plain, scoped = self._read()
                before = tuple(scoped)
                yield plain, scoped
                if tuple(scoped) != before:
                    self._write(self._scoped_file, _encode(_File(1, tuple(scoped))))
                # Always written: a key without this file means that the tokens were lost.
                self._write(self._file, _encode(_File(1, tuple(plain))))
        except OSError as error:
            where = error.filename or self._folder
            raise TokensError(f"{where}: can't be written: {_reason(error)}") from None


def digest_of(key: bytes, token: str) -> bytes:
    """Return the keyed hash of a token (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(token.encode(), key=key, digest_size=32).digest()


def _names(plain: Sequence[_Plain], scoped: Sequence[_Scoped]) -> list[str]:
    return [*(entry.name for entry in plain), *(entry.name for entry in scoped)]


def _decode(path: Path, kind: type[_File[_Entry]]) -> _File[_Entry] | None:
    """Read and decode a file; None if it does not exist. Raises TokensError."""
    try:
        return msgspec.json.decode(read_regular_file(path, _MAX_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise TokensError(f"{path} can't be read: {_reason(error)}") from None


def _encode(file: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=1)


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
