"""What a store says of itself: which versions are chosen, and why something can't be."""

from __future__ import annotations

import contextlib
import getpass
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec

from peerloan.registry.errors import RegistryError
from peerloan.regular_files import read_regular_file

# A state names every former champion, with its digest: room for tens of thousands.
MAX_STATE_BYTES = 16_000_000


class StoreError(RegistryError):
    """A request that the store refuses, and why."""


class StoreFault(RegistryError):
    """A store that can't be read or written; the request is in order."""


class BreakingChange(StoreError):
    """A promotion under which requests that are valid today would fail; `reasons` lists them."""

    def __init__(self, version: str, reasons: list[str]) -> None:
        listed = "; ".join(reasons)
        super().__init__(
            f"{version} would refuse loans that the champion accepts ({listed}); "
            "promote with --breaking if callers are ready"
        )
        self.reasons = reasons


class AliasState(msgspec.Struct, frozen=True):
    """Which version serves (champion) and which runs in shadow (challenger), and how it came.

    `line` are the champions that `rollback` walks back through, the current one last; `former` is
    every version that ever was champion. `digests` are those that these versions and challengers
    had when they were chosen. `deleted` is the version that this change deleted, if it did; its
    action is one that releases before know, too.
    """

    number: int = 0
    champion: str | None = None
    challenger: str | None = None
    line: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    digests: dict[str, str] = {}
    action: Literal["none", "promote", "challenge", "rollback"] = "none"
    who: str = ""
    when: str = ""
    why: str = ""
    deleted: str | None = None

    @property
    def chosen(self) -> frozenset[str]:
        """The versions that an alias names, or that `rollback` can return to."""
        named = (*self.line, self.champion, self.challenger)
        return frozenset(version for version in named if version is not None)

    @property
    def what(self) -> str:
        """What was done, in a word."""
        return "delete" if self.deleted else self.action


class Numbered(Protocol):
    """What a file of the aliases holds, with the number of its change."""

    @property
    def number(self) -> int:
        """The change's number."""
        ...


_Kind = TypeVar("_Kind", bound=Numbered)


def read_numbered(path: Path, number: int, kind: type[_Kind]) -> _Kind:
    """What the file of a change holds; raises StoreFault."""
    try:
        found = msgspec.json.decode(read_regular_file(path, MAX_STATE_BYTES), type=kind)
    except OSError as error:
        raise StoreFault(f"{path} can't be read: {error.strerror}") from None
    # A ValueError is of text that is no UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreFault(f"{path} can't be read: {error}") from None
    if found.number != number:
        raise StoreFault(f"{path} is of another number, {found.number}")
    return found


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """What a volume can raise, as the store's own error."""
    try:
        yield
    except OSError as error:
        raise StoreFault(f"{folder} can't be read: {error.strerror}") from None


def current_user() -> str:
    """The user that this process runs as."""
    try:
        return unicode_text(getpass.getuser())
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def unicode_text(text: str) -> str:
    """Text from the command line or the environment may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
