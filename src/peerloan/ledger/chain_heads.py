"""Heads of chains: files outside the database, each of which names a chain's newest record.

Each head has a MAC, so that nobody without the key can write one, or use the head of one chain for
another. Older releases wrote heads without a MAC; they can read heads with one, since they ignore
unknown keys.

| file in the seal's folder | content |
|---|---|
| `heads/NUMBER.json` | the head of a chain |
| `heads/NUMBER.opening` | an announcement: the chain is being opened and has no head yet |
| `newest` | the number of the newest chain |
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
# What a file is used for. Its MAC covers this, so a renamed head is no valid announcement.
_HEAD, _ANNOUNCEMENT, _NEWEST = b"head", b"announcement", b"newest"
# A head without a MAC (from an older release) may be this many chains past the highest number.
_MAX_GAP = 1_000
_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Digits = Annotated[str, msgspec.Meta(max_length=64)]
# Computes the MAC of its arguments.
Sign = Callable[..., bytes]
_Content = TypeVar("_Content", bound="Head | NewestChain")


class Head(msgspec.Struct, frozen=True):
    """A chain's newest record: its number and MAC. `opened` is the MAC of the chain's opening."""

    chain: _Number
    seq: _Number
    mac: _Digits
    opened: _Digits
    time_ms: int
    closed: bool
    # MAC of the fields above; "" in a head from an older release.
    seal: _Digits = ""


class NewestChain(msgspec.Struct, frozen=True):
    """The number of the newest chain."""

    chain: _Number
    seal: _Digits = ""


class EditedHead(NamedTuple):
    """A file that is no valid head of a chain (chain 0: the file `newest`), and what is wrong."""

    chain: int
    what: str


class StoredHeads(NamedTuple):
    """The valid heads, and the files that are no valid heads."""

    valid: list[Head]
    edited: list[EditedHead]


class HeadFiles:
    """The head files in a seal's folder.

    Thread safety: several threads and processes may use a folder, since each file is replaced
    atomically. Only a chain's writer writes its head.
    """

    def __init__(self, folder: Path, sign: Sign) -> None:
        self.folder = folder / "heads"
        self.newest_path = folder / "newest"
        self._sign = sign

    def check_writable(self) -> None:
        """Check that a head can be written. Raises OSError."""
        path = self.folder / "check"
        atomic_files.replace_file(path, b" " * 300, FILE_MODE)
        path.unlink(missing_ok=True)  # another writer may check too

    def write_announcement(self, head: Head) -> None:
        """Write that a chain is being opened. Raises OSError.

        If the writer is killed before it writes the first head, the chain has no records, and the
        announcement explains why it has no head.
        """
        self._write(self._announcement_path(head.chain), head, _ANNOUNCEMENT)

    def write_head(self, head: Head) -> None:
        """Write a chain's head and remove its announcement. Raises OSError."""
        self._write(self.path(head.chain), head, _HEAD)
        self._announcement_path(head.chain).unlink(missing_ok=True)

    def read_head(self, chain: int) -> Head | EditedHead | None:
        """Read a chain's head; None if there is no file. Raises LedgerUnavailable."""
        return self._read(self.path(chain), chain, Head, _HEAD)

    def read_announcement(self, chain: int) -> Head | EditedHead | None:
        """Read a chain's announcement; None if there is no file. Raises LedgerUnavailable."""
        return self._read(self._announcement_path(chain), chain, Head, _ANNOUNCEMENT)

    def chain_numbers(self) -> list[int]:
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
        for chain in self.chain_numbers():
            head = self.read_head(chain)
            if isinstance(head, Head):
                heads.valid.append(head)
            elif head is not None:
                heads.edited.append(head)
        return heads

    def read_newest(self) -> NewestChain | EditedHead | None:
        """Read the number of the newest chain; None if there is no file.

        Raises LedgerUnavailable.
        """
        return self._read(self.newest_path, 0, NewestChain, _NEWEST)

    def highest_chain(self, minimum: int) -> int:
        """Return the highest chain number of all valid files, or `minimum` if that is higher.

        A file's name alone does not count. Raises LedgerUnavailable.
        """
        highest = max(minimum, self._newest_number() or 0)
        for chain in reversed(self.chain_numbers()):
            head = self.read_head(chain)
            if isinstance(head, Head) and (head.seal or chain <= highest + _MAX_GAP):
                return max(highest, chain)
        return highest

    def create_newest(self, chain: int) -> None:
        """Write the number of the newest chain, unless the file exists. Raises OSError."""
        if not self.newest_path.exists():
            try:
                atomic_files.publish_file(
                    self.newest_path, self._encode(NewestChain(chain), _NEWEST), FILE_MODE
                )
            except FileExistsError:  # another process created it first
                return

    def raise_newest(self, chain: int) -> None:
        """Replace the number of the newest chain if it is lower than this one. Raises OSError.

        A missing or invalid file stays as it is, so that `verify` reports it.
        """
        newest = self._newest_number()
        if newest is not None and newest < chain:
            atomic_files.replace_file(
                self.newest_path, self._encode(NewestChain(chain), _NEWEST), FILE_MODE
            )

    def _newest_number(self) -> int | None:
        """Return the newest chain's number; None without a valid file, which stops no writer."""
        try:
            newest = self.read_newest()
        except LedgerUnavailable as error:  # it may belong to another user
            log.error("can't read the number of the newest chain: %s", error)
            return None
        return newest.chain if isinstance(newest, NewestChain) else None

    def path(self, chain: int) -> Path:
        """Return the path of a chain's head."""
        return self.folder / f"{chain:06d}.json"

    def _announcement_path(self, chain: int) -> Path:
        return self.folder / f"{chain:06d}.opening"

    def _write(self, path: Path, head: Head, usage: bytes) -> None:
        atomic_files.replace_file(path, self._encode(head, usage), FILE_MODE)

    def _encode(self, content: Head | NewestChain, usage: bytes) -> bytes:
        sealed = msgspec.structs.replace(content, seal=self._mac(content, usage))
        return msgspec.json.encode(sealed)

    def _mac(self, content: Head | NewestChain, usage: bytes) -> str:
        return self._sign(usage, *msgspec.structs.astuple(content)[:-1]).hex()

    def _read(
        self, path: Path, chain: int, content_type: type[_Content], usage: bytes
    ) -> _Content | EditedHead | None:
        try:
            content = read_regular_file(path, _MAX_BYTES)
            value = msgspec.json.decode(content, type=content_type)
        except FileNotFoundError:
            return None
        except (NotRegularFile, FileTooLarge, msgspec.MsgspecError, RecursionError):
            return EditedHead(chain, f"{path} was not written by a writer")
        except OSError as error:
            raise _unreadable(path, error) from None
        if chain and value.chain != chain:
            return EditedHead(chain, f"{path} is the head of chain {value.chain}")
        # A head without a MAC may be from an older release; `verify` decides whether it can be.
        if (value.seal or not chain) and value.seal != self._mac(value, usage):
            return EditedHead(chain, f"{path} has a MAC that does not match its content")
        return value


def _unreadable(path: Path, error: OSError) -> LedgerUnavailable:
    return LedgerUnavailable(f"{path}: can't be read: {error.strerror or error}")
