"""Reasons that are added after a change of the aliases, in a separate file for each change.

`aliases/000017.why.json` is the reason of the change in `aliases/000017.json`, which is never
rewritten. It is created only if it is absent. Earlier releases ignore it, as they ignore all file
names that are not a number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from peerloan import atomic_files
from peerloan.formatting import has_control
from peerloan.registry.alias_state import StoreError, StoreFault, read_numbered

MAX_REASON_LENGTH = 1_000
_NAME = re.compile(r"(\d{6,})\.why\.json")


class ChangeReason(msgspec.Struct, frozen=True):
    """The reason of a change, its author, and when it was added (ISO 8601)."""

    number: int
    why: str
    who: str
    when: str

    @property
    def sentence(self) -> str:
        """Describe the reason in a sentence."""
        return f"{self.why} (added later by {self.who} on {self.when[:10]})"


def check_reason(why: str) -> None:
    """Raise StoreError unless a text is valid as a reason."""
    if not why.strip():
        fault = "nothing"
    elif has_control(why):
        fault = f"{why!r}"[:100]
    elif len(why) > MAX_REASON_LENGTH:
        fault = f"{len(why):,} characters"
    else:
        return
    expected = f"text of 1 to {MAX_REASON_LENGTH:,} characters, without control characters"
    raise StoreError(f"why: expected {expected}, given {fault}")


class ChangeReasons(NamedTuple):
    """The reasons in a folder by the number of the change, and messages about unreadable files."""

    by_number: dict[int, ChangeReason]
    faults: list[str]


def read_change_reasons(aliases: Path) -> ChangeReasons:
    """Read the reasons of all changes in a folder. Raises OSError.

    An unreadable file does not prevent reading the others.
    """
    reasons = ChangeReasons({}, [])
    for path in sorted(aliases.iterdir()) if aliases.is_dir() else ():
        if name := _NAME.fullmatch(path.name):
            try:
                reasons.by_number[int(name[1])] = read_numbered(path, int(name[1]), ChangeReason)
            except StoreFault as error:
                reasons.faults.append(f"{error}; move the file away to add the reason again")
    return reasons


def write_change_reason(aliases: Path, reason: ChangeReason) -> None:
    """Write the file of a reason. Raises FileExistsError if the change has one, or OSError."""
    content = msgspec.json.format(msgspec.json.encode(reason), indent=1)
    atomic_files.publish_file(aliases / f"{reason.number:06d}.why.json", content)
