"""The heads of chains, in files outside of the database: which record was each one's newest.

A head carries a MAC of its own, so that it can be neither written by hand nor another chain's. A
release before this one wrote heads without, and reads these: it ignores what it does not know.
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
# Nine digits fit into PostgreSQL's integers, with the next number.
_NAME = re.compile(r"([0-9]{6}|[1-9][0-9]{6,8})\.json")
# What a file is for, under its MAC: a head that is renamed is no announcement.
_HEAD, _ANNOUNCEMENT, _NEWEST = b"head", b"announcement", b"newest"
# Heads without a MAC, of a release before, count for so many chains beyond those that are known.
_REACH = 1_000
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Digits = Annotated[str, msgspec.Meta(max_length=64)]
# The MAC of what it is given.
Sign = Callable[..., bytes]
_Read = TypeVar("_Read", bound="Head | NewestChain")


class Head(msgspec.Struct, frozen=True):
    """A chain's newest record, as it is written down outside of the database."""

    chain: _Number
    seq: _Number
    mac: _Digits
    opened: _Digits
    time_ms: int
    closed: bool
    # Of all of this; "" in a head of a release that gave none.
    seal: _Digits = ""


class NewestChain(msgspec.Struct, frozen=True):
    """The number of the newest chain, as it is written down outside of the database."""

    chain: _Number
    seal: _Digits = ""


class Edited(NamedTuple):
    """What stands where a chain's head should (chain 0: the newest chain's number), and why it is
    none.
    """

    chain: int
    what: str


class Heads(NamedTuple):
    """What stands where heads should, by chain."""

    good: list[Head]
    edited: list[Edited]


class HeadFiles:
    """The files in a seal's folder. Thread-safe: each is replaced whole."""

    def __init__(self, folder: Path, sign: Sign) -> None:
        self.folder = folder / "heads"
        self.newest_path = folder / "newest"
        self._sign = sign

    def check(self) -> None:
        """Raise OSError unless a head can be written down."""
        path = self.folder / "check"
        atomic_files.replace_file(path, b" " * 300, FILE_MODE)
        path.unlink(missing_ok=True)  # another writer may check too

    def announce(self, head: Head) -> None:
        """Write down that a chain is about to be opened: if its writer is killed before it can
        write a head, it has no records, and this tells why it has no head. Raises OSError.
        """
        self._write(self._announcement(head.chain), head, _ANNOUNCEMENT)

    def write(self, head: Head) -> None:
        """Write down a chain's head; raises OSError."""
        self._write(self.path(head.chain), head, _HEAD)
        self._announcement(head.chain).unlink(missing_ok=True)

    def read(self, chain: int) -> Head | Edited | None:
        """A chain's head, if there is one; raises LedgerUnavailable."""
        return self._read(self.path(chain), chain, Head, _HEAD)

    def announced(self, chain: int) -> Head | Edited | None:
        """What was written down of a chain before it was opened, if that is still there; raises
        LedgerUnavailable.
        """
        return self._read(self._announcement(chain), chain, Head, _ANNOUNCEMENT)

    def chains(self) -> list[int]:
        """The numbers of the chains whose heads were written down, in order; raises
        LedgerUnavailable.
        """
        try:
            names = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.folder, error) from None
        return sorted(int(name[:-5]) for name in names if _NAME.fullmatch(name))

    def read_all(self) -> Heads:
        """Every head that was written down; raises LedgerUnavailable."""
        found = Heads([], [])
        for chain in self.chains():
            head = self.read(chain)
            if isinstance(head, Head):
                found.good.append(head)
            elif head is not None:
                found.edited.append(head)
        return found

    def newest(self) -> NewestChain | Edited | None:
        """The highest number that was written down; raises LedgerUnavailable."""
        return self._read(self.newest_path, 0, NewestChain, _NEWEST)

    def newest_chain(self, known: int) -> int:
        """The highest number of a chain that was ever written down, at least the one that is known;
        a file's name alone says nothing.
        """
        known = max(known, self._newest_number() or 0)
        for chain in reversed(self.chains()):
            head = self.read(chain)
            if isinstance(head, Head) and (head.seal or chain <= known + _REACH):
                return max(known, chain)
        return known

    def begin_newest(self, chain: int) -> None:
        """Write down which chain is the newest, unless that was done before; raises OSError."""
        if not self.newest_path.exists():
            try:
                atomic_files.publish_file(
                    self.newest_path, self._sealed(NewestChain(chain), _NEWEST), FILE_MODE
                )
            except FileExistsError:  # another process was the first
                return

    def raise_newest(self, chain: int) -> None:
        """Write down that a chain is the newest, if an older one stands there; raises OSError.

        What is not there, or not ours, stays so: `verify` is to find it.
        """
        newest = self._newest_number()
        if newest is not None and newest < chain:
            atomic_files.replace_file(
                self.newest_path, self._sealed(NewestChain(chain), _NEWEST), FILE_MODE
            )

    def _newest_number(self) -> int | None:
        """The number that was written down, for a writer: whatever became of it, it goes on."""
        try:
            newest = self.newest()
        except LedgerUnavailable as error:  # another user's file, perhaps
            log.error("the newest chain's number: %s", error)
            return None
        return newest.chain if isinstance(newest, NewestChain) else None

    def path(self, chain: int) -> Path:
        """Where a chain's head is written down."""
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

    def _read(self, path: Path, chain: int, kind: type[_Read], use: bytes) -> _Read | Edited | None:
        try:
            content = read_regular_file(path, _MAX_BYTES)
            found = msgspec.json.decode(content, type=kind)
        except FileNotFoundError:
            return None
        except (NotRegularFile, FileTooLarge, msgspec.MsgspecError, RecursionError):
            return Edited(chain, f"{path} is none that a writer wrote")
        except OSError as error:
            raise _unreadable(path, error) from None
        if chain and found.chain != chain:
            return Edited(chain, f"{path} is chain {found.chain}'s")
        # One without may be of a release before: whether that can be is for `verify` to say.
        if (found.seal or not chain) and found.seal != self._seal(found, use):
            return Edited(chain, f"{path} has a MAC that does not fit what it says")
        return found


def _unreadable(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(f"{path}: can't be read: {error.strerror or error}")
