"""The state of a store's aliases (champion, challenger and history), and the store's errors."""

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

# A state lists every former champion with its digest: this is enough for tens of thousands.
MAX_STATE_BYTES = 16_000_000


class StoreError(RegistryError):
    """The store refuses a request; the message gives the reason."""


class StoreFault(RegistryError):
    """The store can't be read or written, although the request is valid."""


class BreakingChange(StoreError):
    """A promotion would break requests that are valid today; `reasons` lists how."""

    def __init__(self, version: str, reasons: list[str]) -> None:
        listed = "; ".join(reasons)
        super().__init__(
            f"{version} would refuse loans that the champion accepts ({listed}); if all "
            "callers are ready, promote it with --breaking"
        )
        self.reasons = reasons


# JSON keys of the fields, as every release reads them.
_KEYS = {"rollback_line": "line", "past_champions": "former"}


class AliasState(msgspec.Struct, frozen=True, rename=_KEYS):
    """The champion (it serves), the challenger (it runs in shadow), and the change that set them.

    `rollback_line` is the stack of champions that `rollback` pops, the current one last.
    `past_champions` lists every version that ever was champion. `digests` maps each version to its
    digest when an alias first named it. `deleted` is the version that this change deleted, if any.
    Such a change also has an action, so that earlier releases can read it.
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
        versions = (*self.rollback_line, self.champion, self.challenger)
        return frozenset(version for version in versions if version is not None)

    @property
    def what(self) -> str:
        """The kind of the change: `action`, or "delete"."""
        return "delete" if self.deleted else self.action


class Numbered(Protocol):
    """Content of a numbered file: it contains the number of its change."""

    @property
    def number(self) -> int:
        """The change's number."""
        ...


_Kind = TypeVar("_Kind", bound=Numbered)


def read_numbered(path: Path, number: int, kind: type[_Kind]) -> _Kind:
    """Read the numbered file of a change. Raises StoreFault."""
    try:
        content = msgspec.json.decode(read_regular_file(path, MAX_STATE_BYTES), type=kind)
    except OSError as error:
        raise StoreFault(f"{path} can't be read: {error.strerror}") from None
    # msgspec raises ValueError for text that is not UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreFault(f"{path} can't be read: {error}") from None
    if content.number != number:
        raise StoreFault(
            f"{path}: number: expected {number}, as in the file's name, given {content.number}"
        )
    return content


@contextlib.contextmanager
def translate_read_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError of the file system as StoreFault."""
    try:
        yield
    except OSError as error:
        raise StoreFault(f"{folder} can't be read: {error.strerror}") from None


def current_user() -> str:
    """Return the name of the user that this process runs as."""
    try:
        return unicode_text(getpass.getuser())
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def unicode_text(text: str) -> str:
    """Replace bytes that are not UTF-8 in text from the command line or the environment."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
