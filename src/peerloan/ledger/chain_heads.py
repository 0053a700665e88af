"""Heads of chains: files outside the database that name each chain's newest record.

Each head carries its own MAC, so that nobody without the key can write one or use another chain's.
Older releases wrote heads without a MAC. They can read these: they ignore unknown keys.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from peerloan import atomic_files
from peerloan.database.errors import LedgerUnavailable
from peerloan.private_files import FILE_MODE
from peerloan.regular_files import FileTooLarge, NotRegularFile, read_regular_file

log = logging.getLogger(__name__)
_MAX_BYTES = 4_096
# At most nine digits, so that the next number fits into PostgreSQL's integers too.
_NAME = re.compile(r"([0-9]{6}|[1-9][0-9]{6,8})\.json")
# The kind of a file, part of its MAC: a renamed head is no valid announcement.
_HEAD, _ANNOUNCEMENT, _NEWEST = b"head", b"announcement", b"newest"
# Heads without a MAC (from older releases) count only up to this many chains past the known ones.
_REACH = 1_000
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Digits = Annotated[str, msgspec.Meta(max_length=64)]
# Computes the MAC of its arguments.
Sign = Callable[..., bytes]
_Read = TypeVar("_Read", bound="Head | NewestChain")


class Head(msgspec.Struct, frozen=True):
    """A chain's newest record, as stored outside the database."""

    chain: _Number
    seq: _Number
    mac: _Digits
    opened: _Digits
    time_ms: int
    closed: bool
    # MAC of the fields above; "" in a head from an older release.
    seal: _Digits = ""


class NewestChain(msgspec.Struct, frozen=True):
    """The number of the newest chain, as stored outside the database."""

    chain: _Number
    seal: _Digits = ""


class EditedHead(NamedTuple):
    """A file that is no valid head of a chain (chain 0: the file `newest`), and why."""

    chain: int
    what: str


class StoredHeads(NamedTuple):
    """The valid heads, and the files that are none."""

    good: list[Head]
    edited: list[EditedHead]


class HeadFiles:
    """The head files in a seal's folder. Thread-safe: each file is replaced atomically."""

    def __init__(self, folder: Path, sign: Sign) -> None:
        self.folder = folder / "heads"
        self.newest_path = folder / "newest"
        self._sign = sign

    def check(self) -> None:
        """Raise OSError unless a head can be written."""
        path = self.folder / "check"
        atomic_files.replace_file(path, b" " * 300, FILE_MODE)
        path.unlink(missing_ok=True)  # another writer may check too

    def announce(self, head: Head) -> None:
        """Write that a chain is about to be opened. Raises OSError.

        If the writer is killed before it can write a head, the chain has no records, and the
        announcement explains why it has no head.
        """
        self._write(self._announcement(head.chain), head, _ANNOUNCEMENT)

    def write(self, head: Head) -> None:
        """Write a chain's head. Raises OSError."""
        self._write(self.path(head.chain), head, _HEAD)
        self._announcement(head.chain).unlink(missing_ok=True)

    def read(self, chain: int) -> Head | EditedHead | None:
        """Read a chain's head, if there is one. Raises LedgerUnavailable."""
        return self._read(self.path(chain), chain, Head, _HEAD)

    def announced(self, chain: int) -> Head | EditedHead | None:
        """Read a chain's announcement, if there is one. Raises LedgerUnavailable."""
        return self._read(self._announcement(chain), chain, Head, _ANNOUNCEMENT)

    def chains(self) -> list[int]:
        """Return the numbers of the chains with a head file, sorted. Raises LedgerUnavailable."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.folder, error) from None
        return sorted(int(name[:-5]) for name in names if _NAME.fullmatch(name))

    def read_all(self) -> StoredHeads:
        """Read every head. Raises LedgerUnavailable."""
        heads = StoredHeads([], [])
        for chain in self.chains():
            head = self.read(chain)
            if isinstance(head, Head):
                heads.good.append(head)
            elif head is not None:
                heads.edited.append(head)
        return heads

    def newest(self) -> NewestChain | EditedHead | None:
        """Read the number of the newest chain. Raises LedgerUnavailable."""
        return self._read(self.newest_path, 0, NewestChain, _NEWEST)

    def newest_chain(self, known: int) -> int:
        """Return the highest chain number of all valid files, at least `known`.

        A file's name alone does not count.
        """
        known = max(known, self._newest_number() or 0)
        for chain in reversed(self.chains()):
            head = self.read(chain)
            if isinstance(head, Head) and (head.seal or chain <= known + _REACH):
                return max(known, chain)
        return known

    def begin_newest(self, chain: int) -> None:
        """Write which chain is the newest, unless the file exists. Raises OSError."""
        if not self.newest_path.exists():
            try:
                atomic_files.publish_file(
                    self.newest_path, self._sealed(NewestChain(chain), _NEWEST), FILE_MODE
                )
            except FileExistsError:  # another process was the first
                return

    def raise_newest(self, chain: int) -> None:
        """Replace the number of the newest chain if it is older than this one. Raises OSError.

        A missing or invalid file is left alone, so that `verify` finds it.
        """
        newest = self._newest_number()
        if newest is not None and newest < chain:
            atomic_files.replace_file(
                self.newest_path, self._sealed(NewestChain(chain), _NEWEST), FILE_MODE
            )

    def _newest_number(self) -> int | None:
        """Return the newest chain's number, or None: a writer goes on without a valid file."""
        try:
            newest = self.newest()
        except LedgerUnavailable as error:  # it may belong to another user
            log.error("can't read the number of the newest chain: %s", error)
            return None
        return newest.chain if isinstance(newest, NewestChain) else None

    def path(self, chain: int) -> Path:
        """Return the path of a chain's head."""
        return self.folder / f"{chain:06d}.json"

    def _announcement(self, chain: int) -> Path:
        return self.folder / f"{chain:06d}.opening"

    def _write(self, path: Path, head: Head, use: bytes) -> None:
        atomic_files.replace_file(path, self._sealed(head, use), FILE_MODE)

    def _sealed(self, content: Head | NewestChain, use: bytes) -> bytes:
        sealed = msgspec.structs.replace(content, seal=self._seal(content, use))
        return msgspec.json.encode(sealed)

    def _seal(self, content: Head | NewestChain, use: bytes) -> str:
        return self._sign(use, *msgspec.structs.astuple(content)[:-1]).hex()

    def _read(
        self, path: Path, chain: int, kind: type[_Read], use: bytes
    ) -> _Read | EditedHead | None:
        try:
            content = read_regular_file(path, _MAX_BYTES)
            value = msgspec.json.decode(content, type=kind)
        except FileNotFoundError:
            return None
        except (NotRegularFile, FileTooLarge, msgspec.MsgspecError, RecursionError):
            return EditedHead(chain, f"{path} is none that a writer wrote")
        except OSError as error:
            raise _unreadable(path, error) from None
        if chain and value.chain != chain:
            return EditedHead(chain, f"{path} is chain {value.chain}'s")
        # A head without a MAC may come from an older release. `verify` decides whether it can.
        if (value.seal or not chain) and value.seal != self._seal(value, use):
            return EditedHead(chain, f"{path} has a MAC that does not fit what it says")
        return value


def _unreadable(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(f"{path}: can't be read: {error.strerror or error}")
