"""API tokens: who may call, kept in a folder as keyed hashes.

`tokens.json` names each caller with the keyed hash of its token, and `key` is the key: neither
shows a token, and without the key nobody can make an entry. Tokens with scopes of their own stand
in `scoped.json`: the release before, which knows no scopes, never reads that, and refuses them. The
folder is written by `peerloan token` and only read by the service.
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
# What only operators may do: change which model serves.
PROMOTE = "promote"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
# So that who finds a token somewhere, or searches for lost ones, sees what it is.
_PREFIX = "peerloan_"
_KEY_BYTES = 32
# A token takes some 200 bytes.
_MAX_BYTES = 16_000_000
_MARK = (
    b"API tokens were made, so the service asks for one even where their folder is gone.\n"
    b"Remove this file to begin anew.\n"
)


class TokensError(PeerLoanError, ValueError):
    """Something that can't be done with the tokens, and why."""


@dataclass(frozen=True, slots=True)
class Token:
    """A caller's token: its name, what it may do, when it was made, and its hash."""

    name: str
    scopes: frozenset[str]
    created: str
    digest: str

    @property
    def operator(self) -> bool:
        """Whether it may change which model serves."""
        return PROMOTE in self.scopes


class _Plain(msgspec.Struct, frozen=True):
    """A token of every scope, as each release has it; an operator's may promote, too."""

    name: str
    operator: bool
    created: str
    digest: str

    def token(self) -> Token:
        scopes = frozenset([*SCOPES, PROMOTE] if self.operator else SCOPES)
        return Token(self.name, scopes, self.created, self.digest)


class _Scoped(msgspec.Struct, frozen=True):
    """A token of some scopes; those that this release doesn't know open nothing."""

    name: str
    scopes: tuple[str, ...]
    created: str
    digest: str

    def token(self) -> Token:
        # Only an operator's may promote, whatever stands here.
        scopes = frozenset(SCOPES).intersection(self.scopes)
        return Token(self.name, scopes, self.created, self.digest)


_Entry = TypeVar("_Entry", _Plain, _Scoped)


class _File(msgspec.Struct, Generic[_Entry], frozen=True):
    format: Literal[1]
    tokens: tuple[_Entry, ...]


class Tokens:
    """The tokens in a folder; the first one makes it."""

    def __init__(self, folder: Path, marker: Path | None = None) -> None:
        """`marker`: a file outside of the folder that says that tokens were made, so that a folder
        that is gone is not taken for one that never was.
        """
        self._folder, self._marker = folder, marker
        self._file = folder / "tokens.json"
        self._scoped_file = folder / "scoped.json"
        self._key_file = folder / "key"

    def state(self) -> tuple[int, ...] | None:
        """What changes whenever the tokens do; None while none was ever made.

        Raises OSError or TokensError where that can't be told.
        """
        self._refuse_open_modes()
        state: list[int] = []
        for path in (self._file, self._scoped_file):
            try:
                status = path.stat()
            except FileNotFoundError:
                if path == self._file:
                    self._expect_none_made()
                    return None
            else:
                state += (status.st_ino, status.st_mtime_ns, status.st_size)
        return tuple(state)

    def read(self) -> tuple[Token, ...]:
        """Every token, in the order in which they were made; raises TokensError."""
        plain, scoped = self._read()
        every = [*(each.token() for each in plain), *(each.token() for each in scoped)]
        return tuple(sorted(every, key=lambda token: token.created))

    def key(self) -> bytes:
        """The key of the hashes; raises TokensError."""
        try:
            key = bytes.fromhex(read_regular_text(self._key_file, _MAX_BYTES))
        except (OSError, ValueError) as error:
            raise TokensError(f"{self._key_file} can't be read: {_why(error)}") from None
        if len(key) != _KEY_BYTES:
            raise TokensError(f"{self._key_file} can't be read: expected {_KEY_BYTES} bytes")
        return key

    def new(self, name: str, operator: bool = False, scopes: Sequence[Scope] = ()) -> str:
        """Make a token for a caller and return it: it is kept nowhere. Raises TokensError.

        Without scopes it has every one; an operator's may promote, too.
        """
        if not _NAME.fullmatch(name):
            raise TokensError(
                f"{name!r} can't be a name: expected at most 64 letters, digits and . _ @ -, "
                "a letter or digit first"
            )
        with self._changing() as (plain, scoped):
            if name in _names(plain, scoped):
                raise TokensError(f"{name} has a token already; revoke it first, or choose a name")
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
        # Who makes tokens may be root, and must not make the folder of those who serve.
        if self._marker is not None and self._marker.parent.is_dir():
            with contextlib.suppress(OSError):  # the service leaves it, too
                self.leave_marker()
        return token

    def revoke(self, name: str) -> None:
        """Take a caller's token back; raises TokensError."""
        with self._changing() as (plain, scoped):
            names = _names(plain, scoped)
            if name not in names:
                raise TokensError(f"no token of {name!r} (known: {', '.join(names) or 'none'})")
            plain[:] = [each for each in plain if each.name != name]
            scoped[:] = [each for each in scoped if each.name != name]

    def leave_marker(self) -> None:
        """Note outside of the folder that tokens were made; raises OSError."""
        if self._marker is not None and not self._marker.exists():
            self._marker.parent.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another process may have been the first
                atomic_files.publish_file(self._marker, _MARK, private_files.FILE_MODE)

    def _read(self) -> tuple[list[_Plain], list[_Scoped]]:
        self._refuse_open_modes()
        plain = _decode(self._file, _File[_Plain])
        if plain is None:
            self._expect_none_made()
            return [], []
        scoped = _decode(self._scoped_file, _File[_Scoped])
        return list(plain.tokens), list(scoped.tokens if scoped else ())

    def _refuse_open_modes(self) -> None:
        """Raise TokensError where other users of this machine could make tokens, or sign in by the
        key. What the group may do, who set it up has chosen: volumes may need it.
        """
        closed = (self._key_file, self._file, self._scoped_file)
        for path, refused in ((self._folder, 0o002), *((path, 0o007) for path in closed)):
            try:
                mode = path.stat().st_mode & 0o7777
            except FileNotFoundError:
                continue
            if mode & refused:
                may = "written to" if mode & 0o002 else "read"
                raise TokensError(
                    f"{path} can be {may} by every user of this machine (mode {mode:04o}): "
                    f"look who has a token, and run: chmod o-{'w' if refused == 0o002 else 'rwx'} "
                    f"{path}"
                )

    def _write(self, path: Path, content: bytes) -> None:
        """Write a file whole or not at all, for the folder's owner alone."""
        incoming = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            with open(incoming, "xb", opener=private_files.opener) as file:
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

    def _expect_none_made(self) -> None:
        """Raise TokensError if there were tokens before the file of them was gone."""
        if self._key_file.exists():
            raise TokensError(
                f"{self._file} can't be read: it is gone, but {self._key_file} is there; restore "
                "it, or remove that one too to begin anew"
            )
        if self._marker is not None and self._marker.exists():
            raise TokensError(
                f"{self._folder} holds no tokens, but {self._marker} says that some were made; "
                "restore the folder, or remove that file to begin anew"
            )

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[list[_Plain], list[_Scoped]]]:
        """The tokens, to be changed by one process at a time; written if nothing is raised."""
        try:
            self._folder.mkdir(mode=private_files.FOLDER_MODE, parents=True, exist_ok=True)
            with open(self._folder / ".lock", "wb", opener=private_files.opener) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                plain, scoped = self._read()
                before = tuple(scoped)
                yield plain, scoped
                if tuple(scoped) != before:
                    self._write(self._scoped_file, _encode(_File(1, tuple(scoped))))
                # Always there: a key without it is one whose tokens were lost.
                self._write(self._file, _encode(_File(1, tuple(plain))))
        except OSError as error:
            where = error.filename or self._folder
            raise TokensError(f"{where}: can't be written: {_why(error)}") from None


def digest_of(key: bytes, token: str) -> bytes:
    """The keyed hash of a token (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(token.encode(), key=key, digest_size=32).digest()


def _names(plain: Sequence[_Plain], scoped: Sequence[_Scoped]) -> list[str]:
    return [*(each.name for each in plain), *(each.name for each in scoped)]


def _decode(path: Path, kind: type[_File[_Entry]]) -> _File[_Entry] | None:
    """What a file holds, None where there is none; raises TokensError."""
    try:
        return msgspec.json.decode(read_regular_file(path, _MAX_BYTES), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        raise TokensError(f"{path} can't be read: {_why(error)}") from None


def _encode(file: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=1)


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
