"""The store: every version and its aliases, in two folders on volumes.

`versions/V/` is written once, its manifest last; a folder without one is no version.
`aliases/000017.json` is the whole alias state after the seventeenth change; it is created only if
it is absent, so who loses a race is told. The highest number is the state, the series the history.
A reason that was added to a change later stands in a file of its own (see `explanations`).
"""

from __future__ import annotations

import contextlib
import getpass
import os
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from peerloan.loan import Definition, breaking_changes
from peerloan.model import whole
from peerloan.model.bundle import Bundle
from peerloan.model.drafting import Draft, OnnxParts, read_onnx_parts, with_policy
from peerloan.model.explanations import (
    Explanation,
    Explanations,
    check_why,
    read_explanations,
    write_explanation,
)
from peerloan.model.manifest import (
    MANIFEST,
    BundleError,
    Manifest,
    read_definition,
    read_document,
    read_manifest,
)
from peerloan.model.policy import Policy
from peerloan.model.states import (
    BreakingChange,
    State,
    StoreError,
    StoreFault,
    read_numbered,
)
from peerloan.model.time_limits import Calls, limited

_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")
_STATE = re.compile(r"(\d{6,})\.json")


class Store:
    """A store in a folder; it is created by the first publication."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"
        self._aliases = root / "aliases"
        self.calls = Calls(root)

    # Versions

    @limited("listing the versions")
    def versions(self) -> list[str]:
        """The names of all versions, oldest first."""
        with _readable(self._versions):
            if not self._versions.is_dir():
                return []
            folders = [
                path
                for path in self._versions.iterdir()
                if _VERSION.fullmatch(path.name) and _has_manifest(path)
            ]
        return [path.name for path in sorted(folders, key=_created)]

    def manifest(self, version: str) -> Manifest:
        """A version's manifest; raises StoreError or BundleError."""
        return self.read(version)[0]

    @limited("reading")
    def read(self, version: str) -> tuple[Manifest, str]:
        """A version's manifest and digest, without opening it; raises StoreError or BundleError."""
        return read_manifest(self.folder(version))

    @limited("loading")
    def load(self, version: str) -> Bundle:
        """Read and verify a version, which must be as it was if it ever was chosen; raises
        StoreError or BundleError.
        """
        bundle = Bundle.read(self.folder(version))
        state = self.state()
        if state.digests.get(version, bundle.digest) != bundle.digest:
            raise BundleError(
                f"{version}: was changed after it was chosen: its digest is {bundle.digest[:12]}…, "
                f"then it was {state.digests[version][:12]}…"
            )
        return bundle

    @limited("reading the definition of")
    def definition(self, version: str) -> Definition:
        """A version's loan definition, without opening its model."""
        return read_definition(self.folder(version))

    @limited("reading a document of")
    def document(self, version: str, name: str) -> str | None:
        """A version's document for people (`report.html`, `card.md`), if it has one."""
        return read_document(self.folder(version), name)

    @limited("publishing", is_writing=True, is_long=True)
    def publish(self, draft: Draft) -> str:
        """Write a new version and return its name; it exists wholly or not at all."""
        self.check_model(draft.manifest.model)
        now = datetime.now(UTC)
        try:
            folder = self._claim(f"{draft.manifest.candidate}-{now:%Y%m%d-%H%M%S}")
            try:
                files, _ = draft.named(folder.name, now.isoformat(timespec="seconds"))
                manifest = files.pop(MANIFEST)
                for name, content in files.items():
                    whole.write(folder / name, content)
                whole.publish_file(folder / MANIFEST, manifest)
                whole.sync(self._versions)
            except BaseException:
                with contextlib.suppress(OSError):
                    _remove(folder)
                raise
        except OSError as error:
            raise StoreFault(f"{self._versions}: can't be written: {error.strerror}") from error
        return folder.name

    @limited("reading the estimator of")
    def onnx_parts(self, version: str) -> OnnxParts:
        """The estimator of an ONNX version, as it was drafted; raises BundleError."""
        return read_onnx_parts(self.folder(version))

    @limited("publishing anew", is_writing=True, is_long=True)
    def revise(self, version: str, policy: Policy, documents: Mapping[str, str]) -> str:
        """Publish a version anew under another policy; `documents` replace those of their name."""
        return self.publish(
            with_policy(self.load(version), self.folder(version), policy, documents)
        )

    @limited("deleting", is_writing=True)
    def delete(self, version: str) -> None:
        """Remove a version, which is whole until it is none; raises StoreError.

        Refused are the champion, the challenger, and those that `rollback` can return to.
        """
        folder = self.folder(version)
        state = self.state()
        if version == state.champion:
            raise StoreError(f"{version} is the champion, and can't be deleted")
        if version == state.challenger:
            raise StoreError(f"{version} is the challenger, and can't be deleted")
        if version in state.line:
            raise StoreError(
                f"{version} can't be deleted: it was champion, and `rollback` can return to it"
            )
        try:
            _remove(folder)
            whole.sync(self._versions)
        except OSError as error:
            raise StoreFault(f"{folder}: can't be deleted: {error.strerror}") from error

    def check_model(self, name: str) -> None:
        """Raise StoreError if the store holds versions of another model."""
        model = self._model()
        if model not in (None, name):
            raise StoreError(
                f"{self.root} holds the model '{model}'; '{name}' needs a store of its own"
            )

    def _model(self) -> str | None:
        """The name of the model that the store holds, by the champion or else the oldest version
        that can be read.
        """
        champion = self.state().champion
        for version in sorted(self.versions(), key=lambda each: each != champion):
            with contextlib.suppress(BundleError):
                return self.manifest(version).model
        return None

    # Aliases

    @limited("reading the state of the aliases")
    def state(self) -> State:
        """The current state of the aliases; raises StoreError if it can't be read."""
        numbers = self._numbers()
        return self._read_state(numbers[-1]) if numbers else State()

    @limited("looking for a state after")
    def changed_since(self, number: int) -> bool:
        """Whether there is a state after this one."""
        return max(self._numbers(), default=0) > number

    @limited("reading the history")
    def history(self) -> list[State]:
        """Every state, oldest first."""
        return [self._read_state(number) for number in self._numbers()]

    @limited("reading the explanations")
    def explanations(self) -> Explanations:
        """Reasons that were added after a change; raises StoreFault."""
        with _readable(self._aliases):
            return read_explanations(self._aliases)

    @limited("explaining change", is_writing=True)
    def explain_change(self, number: int, why: str, who: str = "") -> Explanation:
        """Add the reason of a change that was made without one; raises StoreError.

        `who` does it, if not the user that this process runs as.
        """
        why = _unicode(why)
        check_why(why)
        numbers = self._numbers()
        if number not in numbers:
            known = f"1 to {numbers[-1]:,}" if numbers else "none: nothing was changed yet"
            raise StoreError(f"no change {number:,} in {self.root} (known: {known})")
        state = self._read_state(number)
        if state.why:
            raise StoreError(f"change {number:,} has a reason already, by {state.who}: {state.why}")
        when = datetime.now(UTC).isoformat(timespec="seconds")
        explanation = Explanation(number, why, _unicode(who) or current_user(), when)
        try:
            write_explanation(self._aliases, explanation)
        except FileExistsError:
            found = self.explanations()
            earlier = found.by_number.get(number)
            reason = "; ".join(found.faults) if earlier is None else earlier.sentence
            raise StoreError(f"change {number:,} has a reason already: {reason}") from None
        except OSError as error:
            raise StoreFault(f"{self._aliases}: can't be written: {error.strerror}") from error
        return explanation

    @limited("promoting", is_writing=True)
    def promote(
        self,
        version: str,
        why: str = "",
        breaking: bool = False,
        first: bool = False,
        who: str = "",
    ) -> State:
        """Make a version the champion, or if `first` only where there is none yet.

        `who` asks for it, if not the user that this process runs as. Raises BundleError,
        BreakingChange or StoreError.
        """
        state = self.state()
        if first and state.champion is not None:
            raise StoreError(f"{state.champion} became the champion meanwhile; {version} is not")
        new = self._choosable(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion already")
        if not breaking and (reasons := self._breaking(state.champion, new.definition)):
            raise BreakingChange(version, reasons)
        return self._change(
            state,
            why,
            action="promote",
            champion=version,
            challenger=None if state.challenger == version else state.challenger,
            line=(*state.line, version),
            digests=state.digests | {version: new.digest},
            who=who,
        )

    @limited("challenging with", is_writing=True)
    def challenge(self, version: str, why: str = "", who: str = "") -> State:
        """Make a version the challenger; raises BundleError or StoreError.

        `who` does it, if not the user that this process runs as.
        """
        state = self.state()
        new = self._choosable(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion; a challenger is another version")
        digests = state.digests | {version: new.digest}
        return self._change(
            state, why, action="challenge", challenger=version, digests=digests, who=who
        )

    @limited("dismissing the challenger", is_writing=True)
    def dismiss(self, why: str = "") -> State:
        """Have no challenger any more; raises StoreError if there is none."""
        state = self.state()
        if state.challenger is None:
            raise StoreError("there is no challenger")
        # No action of its own: releases that know none go on reading the state.
        return self._change(state, why, action="challenge", challenger=None)

    @limited("rolling back", is_writing=True)
    def rollback(self, why: str = "") -> State:
        """Return to the champion before the current one; again, one further back."""
        state = self.state()
        if len(state.line) < 2:
            raise StoreError("there is no champion before the current one")
        line = state.line[:-1]
        self.load(line[-1])
        return self._change(
            state,
            why,
            action="rollback",
            champion=line[-1],
            challenger=None if state.challenger == line[-1] else state.challenger,
            line=line,
        )

    def known_fields(self, state: State) -> frozenset[str]:
        """The fields of champion, challenger and former champions, which requests may carry."""
        names: set[str] = set()
        for version in {*state.former, state.champion, state.challenger} - {None}:
            # A version that can't be read must not keep the champion from serving.
            with contextlib.suppress(BundleError, StoreError):
                definition = self.definition(str(version))
                names.update(definition.names, definition.roles.columns())
        return frozenset(names)

    def _choosable(self, version: str, state: State) -> Bundle:
        """A version that may become champion or challenger: proven, and of the store's model."""
        bundle = self.load(version)
        if state.champion is not None:
            self.check_model(bundle.manifest.model)
        return bundle

    def _breaking(self, champion: str | None, new: Definition) -> list[str]:
        if champion is None:
            return []
        try:
            old = self.definition(champion)
        except (BundleError, StoreError):  # a champion that can't be read can't be asked
            return []
        return breaking_changes(old, new)

    def _change(self, state: State, why: str, who: str = "", **changes: object) -> State:
        new = msgspec.structs.replace(
            state,
            number=state.number + 1,
            who=_unicode(who) or current_user(),
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            why=_unicode(why),
            **changes,
        )
        if new.champion is not None and new.champion not in state.former:
            new = msgspec.structs.replace(new, former=(*state.former, new.champion))
        path = self._state_file(new.number)
        content = msgspec.json.format(msgspec.json.encode(new), indent=1)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                whole.publish_file(path, content)
            except FileExistsError:
                raise StoreError(
                    f"somebody changed the aliases at the same time (state {new.number}); "
                    "look at `peerloan models list` and try again"
                ) from None
        except OSError as error:
            # What is in place may have been seen by others: it can't be taken back.
            done = "; the change is in place, but may not last" if path.exists() else ""
            raise StoreFault(f"{path}: can't be written: {error.strerror}{done}") from error
        return new

    def _read_state(self, number: int) -> State:
        return read_numbered(self._state_file(number), number, State)

    def _numbers(self) -> list[int]:
        with _readable(self._aliases):
            if not self._aliases.is_dir():
                return []
            found = [_STATE.fullmatch(path.name) for path in self._aliases.iterdir()]
        return sorted(int(match[1]) for match in found if match)

    def _state_file(self, number: int) -> Path:
        return self._aliases / f"{number:06d}.json"

    @limited("looking for")
    def folder(self, version: str) -> Path:
        """Where a version's files stand; raises StoreError if there is none of this name."""
        with _readable(self._versions):
            # A name that could leave the folder is no version's.
            there = _VERSION.fullmatch(version) and (self._versions / version).is_dir()
        if not there:
            known = ", ".join(self.versions()[-5:]) or "none"
            raise StoreError(f"no version {version!r} in {self.root} (newest: {known})")
        return self._versions / version

    def _claim(self, name: str) -> Path:
        if not _VERSION.fullmatch(name):
            raise StoreError(f"{name!r} can't be a version: its letters must be a-z, 0-9, - and .")
        self._versions.mkdir(parents=True, exist_ok=True)
        for folder in (self._versions / each for each in _names(name)):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
        raise AssertionError("names never end")


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """What a volume can raise, as the store's own error."""
    try:
        yield
    except OSError as error:
        raise StoreFault(f"{folder} can't be read: {error.strerror}") from None


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # listed all the same, as one that is refused
        return True


def _names(name: str) -> Iterator[str]:
    yield name
    number = 2
    while True:
        yield f"{name}-{number}"
        number += 1


def _created(folder: Path) -> tuple[str, str]:
    try:
        return read_manifest(folder)[0].created, folder.name
    except BundleError:  # listed all the same, so that somebody sees it
        return "", folder.name


def current_user() -> str:
    """The user that this process runs as."""
    try:
        return _unicode(getpass.getuser())
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid {os.getuid()}"


def _unicode(text: str) -> str:
    """Text from the command line or the environment may hold bytes that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _remove(folder: Path) -> None:
    # Without a manifest, what is left if this is cut short is no version.
    whole.remove(folder, first=MANIFEST)
