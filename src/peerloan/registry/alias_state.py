"""The state of a store's aliases: the champion, the challenger and their history; store errors."""

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

# A state lists every former champion with its digest: enough for tens of thousands.
MAX_STATE_BYTES = 16_000_000


class StoreError(RegistryError):
    """A request that the store refuses, with the reason."""


class StoreFault(RegistryError):
    """The store can't be read or written. The request itself is valid."""


class BreakingChange(StoreError):
    """A promotion that would break requests that are valid today; `reasons` lists the breaks."""

    def __init__(self, version: str, reasons: list[str]) -> None:
        listed = "; ".join(reasons)
        super().__init__(
            f"{version} would refuse loans that the champion accepts ({listed}); "
            "promote with --breaking if callers are ready"
        )
        self.reasons = reasons


# Names of JSON keys that every release reads.
_KEYS = {"rollback_line": "line", "past_champions": "former"}


class AliasState(msgspec.Struct, frozen=True, rename=_KEYS):
    """The champion (it serves), the challenger (it runs in shadow), and the change that set them.

    `rollback_line` is the stack of champions that `rollback` pops, the current one last.
    `past_champions` lists every version that ever was champion. `digests` maps each version to its
    digest at the time when it was chosen. `deleted` is the version that this change deleted, if
    any; such a change has an action that earlier releases can read.
    """

    number: int = 0
    champion: str | None = None
    challenger: str | None = None
    rollback_line: tuple[str, ...] = ()
    past_champions: tuple[str, ...] = ()
    digests: dict[str, str] = {}
    action: Literal["none", "promote", "challenge", "rollback"] = "none"
    who: str = ""
    when: str = ""
    why: str = ""
    deleted: str | None = None

    @property
    def in_use(self) -> frozenset[str]:
        """The versions that an alias names or that `rollback` can return to."""
        named = (*self.rollback_line, self.champion, self.challenger)
        return frozenset(version for version in named if version is not None)

    @property
    def what(self) -> str:
        """The change in one word."""
        return "delete" if self.deleted else self.action


class Numbered(Protocol):
    """The content of a numbered alias file, with the number of its change."""

    @property
    def number(self) -> int:
        """The change's number."""
        ...


_Kind = TypeVar("_Kind", bound=Numbered)


def read_numbered(path: Path, number: int, kind: type[_Kind]) -> _Kind:
    """Read the numbered file of a change. Raises StoreFault."""
    try:
        found = msgspec.json.decode(read_regular_file(path, MAX_STATE_BYTES), type=kind)
    except OSError as error:
        raise StoreFault(f"{path} can't be read: {error.strerror}") from None
    # msgspec raises ValueError for text that is not UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreFault(f"{path} can't be read: {error}") from None
    if found.number != number:
        raise StoreFault(f"{path} is of another number, {found.number}")
    return found


@contextlib.contextmanager
def translate_read_errors(folder: Path) -> Iterator[None]:
    """Raise a file system's OSError as StoreFault."""
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
    """Replace bytes that are not UTF-8 in text from the command line or the environment."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
