"""The store: every version and its aliases, in two folders on volumes.

`versions/V/` is written once, its manifest last; a folder without one is no version.
`aliases/000017.json` is the whole alias state after the seventeenth change; it is created only if
it is absent, so who loses a race is told. The highest number is the state, the series the history.
A reason that was added to a change later stands in a file of its own (see `explanations`).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peerloan import atomic_files
from peerloan.loan import Definition, breaking_changes
from peerloan.model.policy import Policy
from peerloan.registry import deletion
from peerloan.registry.alias_state import (
    AliasState,
    BreakingChange,
    StoreError,
    StoreFault,
    readable,
)
from peerloan.registry.aliases import Aliases, refuse_chosen, without_choice, without_folder
from peerloan.registry.bundle import Bundle
from peerloan.registry.errors import RegistryError
from peerloan.registry.explanations import Explanation, Explanations
from peerloan.registry.manifest import (
    MANIFEST,
    BundleError,
    Manifest,
    read_definition,
    read_document,
    read_manifest,
)
from peerloan.registry.packaging import (
    DocumentWriter,
    Draft,
    OnnxParts,
    read_onnx_parts,
    with_policy,
    write_no_documents,
)
from peerloan.registry.servable import prove_servable
from peerloan.registry.time_limits import Calls, limited

_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


class Store:
    """A store in a folder; it is created by the first publication."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"
        self._aliases = Aliases(root / "aliases")
        self.calls = Calls(root)

    # Versions

    @limited("listing the versions")
    def versions(self) -> list[str]:
        """The names of all versions, oldest first."""
        with readable(self._versions):
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

    @limited("proving")
    def prove(self, version: str) -> Bundle:
        """Load a version, and make all that serving it needs; raises StoreError or BundleError."""
        bundle = self.load(version)
        prove_servable(bundle, self.known_fields(self.state()))
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
        """Write a new version and return its name; it exists wholly or not at all.

        The name is reserved first, so documents are rendered with it.
        """
        self.check_model(draft.manifest.model)
        now = datetime.now(UTC)
        try:
            folder = self._claim(f"{draft.manifest.candidate}-{now:%Y%m%d-%H%M%S}")
            try:
                files, _ = draft.named(folder.name, now.isoformat(timespec="seconds"))
                manifest = files.pop(MANIFEST)
                for name, content in files.items():
                    atomic_files.write(folder / name, content)
                atomic_files.publish_file(folder / MANIFEST, manifest)
                atomic_files.sync(self._versions)
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
    def revise(
        self,
        version: str,
        policy: Policy,
        write_documents: DocumentWriter = write_no_documents,
    ) -> str:
        """Publish a version anew under another policy, with these documents anew."""
        return self.publish(
            with_policy(self.load(version), self.folder(version), policy, write_documents)
        )

    @limited("deleting", is_writing=True)
    def delete(self, version: str) -> None:
        """Remove a version; raises StoreError.

        Refused are the champion, the challenger, and those that `rollback` can return to. The
        folder is set aside first: who chooses the version from then on does not find it. Then the
        deletion takes the next change's number: who found it before is told that the aliases were
        changed, or else did so first, and the folder is put back.
        """
        refuse_chosen(version, self.state())
        folder = self.place(version)
        try:
            if not deletion.move_aside(folder):
                raise self._unknown(version)
            try:
                self._aliases.append(lambda state: without_folder(version, state))
            except BaseException:
                deletion.put_back(folder)
                raise
            if not deletion.discard(folder):
                raise StoreError(f"{version} was deleted or put back by somebody else meanwhile")
        except OSError as error:
            raise StoreFault(f"{folder}: can't be deleted: {error.strerror}") from error

    @limited("looking for what is being deleted")
    def being_deleted(self) -> list[str]:
        """The versions that are set aside: their deletion goes on, or was cut short."""
        with readable(self._versions):
            return sorted(
                path.name[1:].removesuffix(".deleting")
                for path in self._versions.glob(".*.deleting")
            )

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
    def state(self) -> AliasState:
        """The current state of the aliases; raises StoreFault if it can't be read."""
        return self._aliases.state()

    @limited("looking for a state after")
    def changed_since(self, number: int) -> bool:
        """Whether there is a state after this one."""
        return self._aliases.changed_since(number)

    @limited("reading the history")
    def history(self) -> list[AliasState]:
        """Every state, oldest first."""
        return self._aliases.history()

    @limited("reading the explanations")
    def explanations(self) -> Explanations:
        """Reasons that were added after a change; raises StoreFault."""
        return self._aliases.explanations()

    @limited("explaining change", is_writing=True)
    def explain_change(self, number: int, why: str, who: str = "") -> Explanation:
        """Add the reason of a change that was made without one; raises StoreError.

        `who` does it, if not the user that this process runs as.
        """
        return self._aliases.explain_change(number, why, who)

    @limited("promoting", is_writing=True)
    def promote(
        self,
        version: str,
        why: str = "",
        breaking: bool = False,
        first: bool = False,
        who: str = "",
    ) -> AliasState:
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
        return self._choose(
            version,
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
    def challenge(self, version: str, why: str = "", who: str = "") -> AliasState:
        """Make a version the challenger; raises BundleError or StoreError.

        `who` does it, if not the user that this process runs as.
        """
        state = self.state()
        new = self._choosable(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion; a challenger is another version")
        digests = state.digests | {version: new.digest}
        return self._choose(
            version, state, why, action="challenge", challenger=version, digests=digests, who=who
        )

    @limited("dismissing the challenger", is_writing=True)
    def dismiss(self, why: str = "") -> AliasState:
        """Have no challenger any more; raises StoreError if there is none."""
        state = self.state()
        if state.challenger is None:
            raise StoreError("there is no challenger")
        # No action of its own: releases that know none go on reading the state.
        return self._aliases.change(state, why, action="challenge", challenger=None)

    @limited("rolling back", is_writing=True)
    def rollback(self, why: str = "") -> AliasState:
        """Return to the champion before the current one; again, one further back."""
        state = self.state()
        if len(state.line) < 2:
            raise StoreError("there is no champion before the current one")
        line = state.line[:-1]
        self.prove(line[-1])
        return self._choose(
            line[-1],
            state,
            why,
            action="rollback",
            champion=line[-1],
            challenger=None if state.challenger == line[-1] else state.challenger,
            line=line,
        )

    def known_fields(self, state: AliasState) -> frozenset[str]:
        """The fields of champion, challenger and former champions, which requests may carry."""
        names: set[str] = set()
        for version in {*state.former, state.champion, state.challenger} - {None}:
            # A version that can't be read must not keep the champion from serving.
            with contextlib.suppress(RegistryError):
                definition = self.definition(str(version))
                names.update(definition.names, definition.roles.columns())
        return frozenset(names)

    def _choosable(self, version: str, state: AliasState) -> Bundle:
        """A version that may become champion or challenger: whole, servable, and of the store's
        model.
        """
        bundle = self.prove(version)
        if state.champion is not None:
            self.check_model(bundle.manifest.model)
        return bundle

    def _breaking(self, champion: str | None, new: Definition) -> list[str]:
        if champion is None:
            return []
        try:
            old = self.definition(champion)
        except RegistryError:  # a champion that can't be read can't be asked
            return []
        return breaking_changes(old, new)

    def _choose(self, version: str, state: AliasState, why: str, **changes: Any) -> AliasState:
        """Change the aliases to name a version; raises StoreError if it is gone then."""
        new = self._aliases.change(state, why, **changes)
        with contextlib.suppress(RegistryError):
            if _has_manifest(self.folder(version)):
                return new
        # A release before, or a person, removes folders without asking again.
        back = self._aliases.append(lambda newest: without_choice(version, state, newest))
        raise StoreError(
            f"{version} was deleted at the same time; the champion is {back.champion or 'none'}"
        )

    @limited("looking for")
    def folder(self, version: str) -> Path:
        """Where a version's files stand; raises StoreError if there is none of this name.

        A chosen version whose deletion was cut short, or has not been refused yet, is put back.
        """
        folder = self.place(version)
        if not folder.is_dir() and version in self.state().chosen:
            with contextlib.suppress(OSError):
                deletion.put_back(folder)
        if not folder.is_dir():
            raise StoreError(
                f"{version} is being deleted; if that was cut short, "
                f"`peerloan models delete {version}` ends it"
            )
        return folder

    @limited("looking for the place of")
    def place(self, version: str) -> Path:
        """Where a version's files stand, or stood until it was set aside to be deleted; raises
        StoreError if there is none of this name.
        """
        folder = self._versions / version
        with readable(self._versions):
            # A name that could leave the folder is no version's. Looked for twice: it may be put
            # back between the two looks.
            places = (folder, deletion.pending_path(folder), folder)
            if not _VERSION.fullmatch(version) or not any(place.is_dir() for place in places):
                raise self._unknown(version)
        return folder

    def _unknown(self, version: str) -> StoreError:
        known = ", ".join(self.versions()[-5:]) or "none"
        return StoreError(f"no version {version!r} in {self.root} (newest: {known})")

    def _claim(self, name: str) -> Path:
        if not _VERSION.fullmatch(name):
            raise StoreError(f"{name!r} can't be a version: its letters must be a-z, 0-9, - and .")
        self._versions.mkdir(parents=True, exist_ok=True)
        for folder in (self._versions / each for each in _names(name)):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                if not deletion.pending_path(folder).exists():
                    return folder
                # It may be put back: the name is not free before it is gone.
                with contextlib.suppress(OSError):
                    folder.rmdir()
        raise AssertionError("names never end")


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


def _remove(folder: Path) -> None:
    # Without a manifest, what is left if this is cut short is no version.
    atomic_files.remove(folder, first=MANIFEST)
