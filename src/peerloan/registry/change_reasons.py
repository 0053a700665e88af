"""Reasons that were added after a change of the aliases, each in a file beside the change's.

`aliases/000017.why.json` explains the change of `aliases/000017.json`, which is never rewritten. It
is created only if it is absent. Releases that don't know explanations skip it, as they skip every
name that is not a number.
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
    """The reason of a change, who added it, and when."""

    number: int
    why: str
    who: str
    when: str

    @property
    def sentence(self) -> str:
        """Describe the reason in a sentence."""
        return f"{self.why} (added later by {self.who} on {self.when[:10]})"


def check_reason(why: str) -> None:
    """Raise StoreError unless a text is a valid reason."""
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
    """The explanations in a folder by number of change, and the faults of unreadable ones."""

    by_number: dict[int, ChangeReason]
    faults: list[str]


def read_change_reasons(aliases: Path) -> ChangeReasons:
    """Read every explanation in a folder.

    An unreadable file does not hide others. Raises OSError.
    """
    found = ChangeReasons({}, [])
    for path in sorted(aliases.iterdir()) if aliases.is_dir() else ():
        if name := _NAME.fullmatch(path.name):
            try:
                found.by_number[int(name[1])] = read_numbered(path, int(name[1]), ChangeReason)
            except StoreFault as error:
                found.faults.append(f"{error}; move the file away to explain the change again")
    return found


def write_change_reason(aliases: Path, explanation: ChangeReason) -> None:
    """Add an explanation. Raises FileExistsError if the change has one already, or OSError."""
    content = msgspec.json.format(msgspec.json.encode(explanation), indent=1)
    atomic_files.publish_file(aliases / f"{explanation.number:06d}.why.json", content)
