"""The aliases: one numbered file for each change, with the complete state after it.

A file is created only if it is absent, so of two concurrent changes one fails. The file with the
highest number is the current state; all files are the history.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from peerloan import atomic_files
from peerloan.registry.alias_state import (
    AliasState,
    StoreError,
    StoreFault,
    current_user,
    read_numbered,
    translate_read_errors,
    unicode_text,
)
from peerloan.registry.change_reasons import (
    ChangeReason,
    ChangeReasons,
    check_reason,
    read_change_reasons,
    write_change_reason,
)

_STATE = re.compile(r"(\d{6,})\.json")


class Aliases:
    """The numbered alias files in a folder. The first change creates the folder.

    Thread safety: safe for threads and processes, also on several machines with a shared folder.
    Creating a file is atomic and nothing is cached.

    Errors: StoreFault if the folder can't be read or written, StoreError if a change is refused.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def state(self) -> AliasState:
        """Read the current state of the aliases. Raises StoreFault if it can't be read."""
        numbers = self._numbers()
        return self._read(numbers[-1]) if numbers else AliasState()

    def changed_since(self, number: int) -> bool:
        """Whether there is a newer state than this one."""
        return max(self._numbers(), default=0) > number

    def history(self) -> list[AliasState]:
        """Read every state, oldest first."""
        return [self._read(number) for number in self._numbers()]

    def explanations(self) -> ChangeReasons:
        """Read the reasons that were added after a change. Raises StoreFault."""
        with translate_read_errors(self._folder):
            return read_change_reasons(self._folder)

    def explain_change(self, number: int, why: str, who: str = "") -> ChangeReason:
        """Add a reason to a change that has none. Raises StoreError.

        `who` is recorded as its author; by default the user of this process.
        """
        why = unicode_text(why)
        check_reason(why)
        numbers = self._numbers()
        if number not in numbers:
            existing = f"1 to {numbers[-1]:,}" if numbers else "none: nothing was changed yet"
            raise StoreError(f"no change {number:,} in {self._folder.parent} (changes: {existing})")
        state = self._read(number)
        if state.why:
            raise StoreError(f"change {number:,} already has a reason, by {state.who}: {state.why}")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        explanation = ChangeReason(number, why, unicode_text(who) or current_user(), when)
        try:
            write_change_reason(self._folder, explanation)
        except FileExistsError:
            existing_reasons = self.explanations()
            earlier = existing_reasons.by_number.get(number)
            reason = "; ".join(existing_reasons.faults) if earlier is None else earlier.sentence
            raise StoreError(f"change {number:,} already has a reason: {reason}") from None
        except OSError as error:
            raise StoreFault(f"{self._folder}: can't be written: {error.strerror}") from error
        return explanation

    def change(self, state: AliasState, why: str, **changes: Any) -> AliasState:
        """Write the state that follows `state`. Raises StoreError if that is not the newest."""
        new = next_state(state, why, **changes)
        if not self._publish(new):
            raise StoreError(
                f"another process changed the aliases at the same time (change {new.number}); look "
                "at `peerloan models list` and try again"
            )
        return new

    def append(self, change: Callable[[AliasState], AliasState]) -> AliasState:
        """Apply a change to the newest state. Retries if another process writes a state first."""
        state = self.state()
        while not self._publish(new := change(state)):
            # Read by name, because a listing of a shared folder may be outdated.
            state = self._read(new.number)
        return new

    def _publish(self, state: AliasState) -> bool:
        """Create the file of a state; False if its number is taken. Raises StoreFault."""
        path = self._state_file(state.number)
        content = msgspec.json.format(msgspec.json.encode(state), indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                atomic_files.publish_file(path, content)
            except FileExistsError:
                return False
        except OSError as error:
            # If the file exists, other processes may have read it, so it is not removed.
            hint = (
                "; the change is visible, but may be lost in a power failure"
                if path.exists()
                else ""
            )
            raise StoreFault(f"{path}: can't be written: {error.strerror}{hint}") from error
        return True

    def _read(self, number: int) -> AliasState:
        return read_numbered(self._state_file(number), number, AliasState)

    def _numbers(self) -> list[int]:
        with translate_read_errors(self._folder):
            if not self._folder.is_dir():
                return []
            matches = [_STATE.fullmatch(path.name) for path in self._folder.iterdir()]
        return sorted(int(match[1]) for match in matches if match)

    def _state_file(self, number: int) -> Path:
        return self._folder / f"{number:06d}.json"


def next_state(state: AliasState, why: str, who: str = "", **changes: Any) -> AliasState:
    """Return the state after a change."""
    new = msgspec.structs.replace(
        state,
        number=state.number + 1,
        who=unicode_text(who) or current_user(),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        why=unicode_text(why),
        **{"deleted": None} | changes,
    )
    if new.champion is not None and new.champion not in state.past_champions:
        new = msgspec.structs.replace(new, past_champions=(*state.past_champions, new.champion))
    return new


def refuse_in_use(version: str, state: AliasState) -> None:
    """Raise StoreError if a version is in use and can't be deleted."""
    if version == state.champion:
        raise StoreError(f"{version} can't be deleted: it is the champion")
    if version == state.challenger:
        raise StoreError(f"{version} can't be deleted: it is the challenger")
    if version in state.rollback_line:
        raise StoreError(
            f"{version} can't be deleted: it was champion, and `rollback` can return to it"
        )


def after_deletion(version: str, state: AliasState) -> AliasState:
    """Return the state after a deletion, which changes no alias. Raises StoreError."""
    refuse_in_use(version, state)
    return next_state(state, f"{version} is deleted", action="challenge", deleted=version)


def without_deleted(version: str, before: AliasState, state: AliasState) -> AliasState:
    """Return the state without a version that was deleted after an alias was pointed at it.

    `before` is the state before that change of the alias.
    """
    line = tuple(name for name in state.rollback_line if name != version)
    return next_state(
        state,
        f"{version} was deleted at the same time",
        action="rollback",
        champion=line[-1] if line else None,
        challenger=before.challenger if state.challenger == version else state.challenger,
        rollback_line=line,
    )
