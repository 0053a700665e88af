"""Reasons that were added after a change of the aliases: a file of its own beside the change's.

`aliases/000017.why.json` explains the change of `aliases/000017.json`, which stays as it is. It is
created only if it is absent. Releases that know no explanations pass over it, as over any name that
is no number.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import msgspec

from peerloan import atomic_files
from peerloan.loan.text import has_control
from peerloan.registry.alias_state import StoreError, StoreFault, read_numbered

MAX_WHY = 1_000
_NAME = re.compile(r"(\d{6,})\.why\.json")


class Explanation(msgspec.Struct, frozen=True):
    """Why a change was made, who said so, and when."""

    number: int
    why: str
    who: str
    when: str

    @property
    def sentence(self) -> str:
        """The reason, for people."""
        return f"{self.why} (added later by {self.who} on {self.when[:10]})"


def check_why(why: str) -> None:
    """Raise StoreError unless a text can be a reason."""
    if not why.strip():
        fault = "nothing"
    elif has_control(why):
        fault = f"{why!r}"[:100]
    elif len(why) > MAX_WHY:
        fault = f"{len(why):,} characters"
    else:
        return
    expected = f"text of 1 to {MAX_WHY:,} characters, without control characters"
    raise StoreError(f"why: expected {expected}, given {fault}")


class Explanations(NamedTuple):
    """The explanations in a folder, by the change's number; and what is wrong with others."""

    by_number: dict[int, Explanation]
    faults: list[str]


def read_explanations(aliases: Path) -> Explanations:
    """Every explanation in a folder; one that can't be read hides no other. Raises OSError."""
    found = Explanations({}, [])
    for path in sorted(aliases.iterdir()) if aliases.is_dir() else ():
        if name := _NAME.fullmatch(path.name):
            try:
                found.by_number[int(name[1])] = read_numbered(path, int(name[1]), Explanation)
            except StoreFault as error:
                found.faults.append(f"{error}; move the file away to explain the change again")
    return found


def write_explanation(aliases: Path, explanation: Explanation) -> None:
    """Add an explanation; raises FileExistsError if there is one of the change, or OSError."""
    content = msgspec.json.format(msgspec.json.encode(explanation), indent=1)
    atomic_files.publish_file(aliases / f"{explanation.number:06d}.why.json", content)
