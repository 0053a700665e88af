"""The store: all model versions and their aliases, in two folders on volumes.

`versions/V/` is written once, its manifest last; a folder without a manifest is not a version.
`aliases/000017.json` is the complete alias state after the seventeenth change. It is created only
if it is absent, so of two concurrent changes one fails. The file with the highest number is the
current state; all files are the history. A reason that was added to a change later is in a file of
its own (see `explanations`).
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
    translate_read_errors,
)
from peerloan.registry.aliases import Aliases, after_deletion, refuse_in_use, without_deleted
from peerloan.registry.bundle import Bundle
from peerloan.registry.change_reasons import ChangeReason, ChangeReasons
from peerloan.registry.errors import RegistryError
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
from peerloan.registry.serving_check import check_servable
from peerloan.registry.time_limits import Calls, limited

_VERSION = re.compile(r"[a-z0-9][a-z0-9.-]{0,99}")


class Store:
    """A store of model versions in a folder. The first publication creates the folder.

    Atomicity: a version appears complete or not at all, because its manifest is written last. An
    alias change appears complete or not at all, because its numbered file is created only if
    absent; of two concurrent changes one raises StoreError. A deletion renames the folder first.
    Two reads are not one transaction: a version can be deleted between them.

    Thread safety: any number of threads, processes and machines may use a store at the same time.
    Nothing is cached; each read reads the files.

    Errors: StoreError if a request is refused, BundleError if a version can't be verified,
    StoreFault if the folder can't be read or written. Most methods raise StoreTimeout, a
    StoreFault, if the file system does not answer in time; the abandoned call may still complete.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._versions = root / "versions"
        self._aliases = Aliases(root / "aliases")
        self.calls = Calls(root)

    # Versions

    @limited("listing the versions")
    def versions(self) -> list[str]:
        """List the names of all versions, oldest first."""
        with translate_read_errors(self._versions):
            if not self._versions.is_dir():
                return []
            folders = [
                path
                for path in self._versions.iterdir()
                if _VERSION.fullmatch(path.name) and _has_manifest(path)
            ]
        return [path.name for path in sorted(folders, key=_created)]

    def manifest(self, version: str) -> Manifest:
        """Read a version's manifest. Raises StoreError or BundleError."""
        return self.read(version)[0]

    @limited("reading")
    def read(self, version: str) -> tuple[Manifest, str]:
        """Read a version's manifest and digest, without its model.

        Raises StoreError or BundleError.
        """
        return read_manifest(self.folder(version))

    @limited("loading")
    def load(self, version: str) -> Bundle:
        """Load and verify a version. Raises StoreError or BundleError.

        A version that was ever chosen must have the same digest as it had then.
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
    def load_servable(self, version: str) -> Bundle:
        """Load a version and derive all that serving it needs. Raises StoreError or BundleError."""
        bundle = self.load(version)
        check_servable(bundle, self.known_fields(self.state()))
        return bundle

    @limited("reading the definition of")
    def definition(self, version: str) -> Definition:
        """Read a version's loan definition without loading its model."""
        return read_definition(self.folder(version))

    @limited("reading a document of")
    def document(self, version: str, name: str) -> str | None:
        """Read a version's document for people (`report.html`, `card.md`), if it has one."""
        return read_document(self.folder(version), name)

    @limited("publishing", is_writing=True, is_long=True)
    def publish(self, draft: Draft) -> str:
        """Write a new version and return its name. It is written completely or not at all.

        The name is reserved first, because documents contain it.
        """
        self.check_model(draft.manifest.model)
        now = datetime.now(UTC)
        try:
            folder = self._reserve_name(f"{draft.manifest.candidate}-{now:%Y%m%d-%H%M%S}")
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
        """Read the estimator of an ONNX version as it was drafted. Raises BundleError."""
        return read_onnx_parts(self.folder(version))

    @limited("publishing anew", is_writing=True, is_long=True)
    def publish_with_policy(
        self,
        version: str,
        policy: Policy,
        write_documents: DocumentWriter = write_no_documents,
    ) -> str:
        """Publish a copy of a version under another policy, with these documents."""
        return self.publish(
            with_policy(self.load(version), self.folder(version), policy, write_documents)
        )

    @limited("deleting", is_writing=True)
    def delete(self, version: str) -> None:
        """Delete a version. Raises StoreError.

        The champion, the challenger, and versions that `rollback` can return to are refused. First
        the folder is renamed aside, so from then on nobody can choose the version. Then the
        deletion is recorded as the next alias change. If another process chose the version before
        the rename, either its change fails because the aliases have changed, or its change comes
        first: then the deletion is refused and the folder is put back.
        """
        refuse_in_use(version, self.state())
        folder = self.version_folder(version)
        try:
            if not deletion.move_aside(folder):
                raise self._unknown(version)
            try:
                self._aliases.append(lambda state: after_deletion(version, state))
            except BaseException:
                deletion.put_back(folder)
                raise
            if not deletion.discard(folder):
                raise StoreError(f"{version} was deleted or put back by somebody else meanwhile")
        except OSError as error:
            raise StoreFault(f"{folder}: can't be deleted: {error.strerror}") from error

    @limited("looking for what is being deleted")
    def pending_deletions(self) -> list[str]:
        """List the versions whose deletion is in progress or was interrupted."""
        with translate_read_errors(self._versions):
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
        """Return the name of the store's model.

        It is the model of the champion, or else of the oldest version that can be read.
        """
        champion = self.state().champion
        for version in sorted(self.versions(), key=lambda each: each != champion):
            with contextlib.suppress(BundleError):
                return self.manifest(version).model
        return None

    # Aliases

    @limited("reading the state of the aliases")
    def state(self) -> AliasState:
        """Read the current state of the aliases. Raises StoreFault if it can't be read."""
        return self._aliases.state()

    @limited("looking for a state after")
    def changed_since(self, number: int) -> bool:
        """Whether there is a newer state than this one."""
        return self._aliases.changed_since(number)

    @limited("reading the history")
    def history(self) -> list[AliasState]:
        """Read every state, oldest first."""
        return self._aliases.history()

    @limited("reading the explanations")
    def explanations(self) -> ChangeReasons:
        """Read the reasons that were added after a change. Raises StoreFault."""
        return self._aliases.explanations()

    @limited("explaining change", is_writing=True)
    def explain_change(self, number: int, why: str, who: str = "") -> ChangeReason:
        """Add a reason to a change that was made without one. Raises StoreError.

        `who` adds it; by default the user of this process.
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
        """Make a version the champion; with `first`, only if there is none yet.

        `who` promotes it; by default the user of this process. Raises BundleError, BreakingChange
        or StoreError.
        """
        state = self.state()
        if first and state.champion is not None:
            raise StoreError(f"{state.champion} became the champion meanwhile; {version} is not")
        new = self._load_choosable(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion already")
        if not breaking and (reasons := self._breaking_changes(state.champion, new.definition)):
            raise BreakingChange(version, reasons)
        return self._choose(
            version,
            state,
            why,
            action="promote",
            champion=version,
            challenger=None if state.challenger == version else state.challenger,
            rollback_line=(*state.rollback_line, version),
            digests=state.digests | {version: new.digest},
            who=who,
        )

    @limited("challenging with", is_writing=True)
    def challenge(self, version: str, why: str = "", who: str = "") -> AliasState:
        """Make a version the challenger. Raises BundleError or StoreError.

        `who` does so; by default the user of this process.
        """
        state = self.state()
        new = self._load_choosable(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion; a challenger is another version")
        digests = state.digests | {version: new.digest}
        return self._choose(
            version, state, why, action="challenge", challenger=version, digests=digests, who=who
        )

    @limited("dismissing the challenger", is_writing=True)
    def dismiss(self, why: str = "") -> AliasState:
        """Remove the challenger from its alias. Raises StoreError if there is none."""
        state = self.state()
        if state.challenger is None:
            raise StoreError("there is no challenger")
        # The action is an existing one, so that earlier releases can read the state.
        return self._aliases.change(state, why, action="challenge", challenger=None)

    @limited("rolling back", is_writing=True)
    def rollback(self, why: str = "") -> AliasState:
        """Return to the previous champion; a second call goes one further back."""
        state = self.state()
        if len(state.rollback_line) < 2:
            raise StoreError("there is no champion before the current one")
        line = state.rollback_line[:-1]
        self.load_servable(line[-1])
        return self._choose(
            line[-1],
            state,
            why,
            action="rollback",
            champion=line[-1],
            challenger=None if state.challenger == line[-1] else state.challenger,
            rollback_line=line,
        )

    def known_fields(self, state: AliasState) -> frozenset[str]:
        """List the fields of champion, challenger and former champions; requests may have them."""
        names: set[str] = set()
        for version in {*state.past_champions, state.champion, state.challenger} - {None}:
            # A version that can't be read must not prevent the champion from serving.
            with contextlib.suppress(RegistryError):
                definition = self.definition(str(version))
                names.update(definition.names, definition.roles.columns())
        return frozenset(names)

    def _load_choosable(self, version: str, state: AliasState) -> Bundle:
        """Load a version that may become champion or challenger.

        It must be complete, servable, and of the store's model.
        """
        bundle = self.load_servable(version)
        if state.champion is not None:
            self.check_model(bundle.manifest.model)
        return bundle

    def _breaking_changes(self, champion: str | None, new: Definition) -> list[str]:
        if champion is None:
            return []
        try:
            old = self.definition(champion)
        except RegistryError:  # without a readable champion there is nothing to compare with
            return []
        return breaking_changes(old, new)

    def _choose(self, version: str, state: AliasState, why: str, **changes: Any) -> AliasState:
        """Change the aliases to name a version. Raises StoreError if it was deleted meanwhile."""
        new = self._aliases.change(state, why, **changes)
        with contextlib.suppress(RegistryError):
            if _has_manifest(self.folder(version)):
                return new
        # An earlier release, or a person, removes folders without a second check.
        back = self._aliases.append(lambda newest: without_deleted(version, state, newest))
        raise StoreError(
            f"{version} was deleted at the same time; the champion is {back.champion or 'none'}"
        )

    @limited("looking for")
    def folder(self, version: str) -> Path:
        """Return the folder of a version. Raises StoreError if there is none of this name.

        If the version is chosen and its deletion was interrupted or is not refused yet, the folder
        is put back.
        """
        folder = self.version_folder(version)
        if not folder.is_dir() and version in self.state().in_use:
            with contextlib.suppress(OSError):
                deletion.put_back(folder)
        if not folder.is_dir():
            raise StoreError(
                f"{version} is being deleted; if that was cut short, "
                f"`peerloan models delete {version}` ends it"
            )
        return folder

    @limited("looking for the place of")
    def version_folder(self, version: str) -> Path:
        """Return the regular folder of a version, which may be renamed aside for deletion.

        Raises StoreError if there is no version of this name.
        """
        folder = self._versions / version
        with translate_read_errors(self._versions):
            # The pattern refuses names that could leave the folder. The regular path is checked
            # twice, because the folder may be put back between the two checks.
            places = (folder, deletion.pending_path(folder), folder)
            if not _VERSION.fullmatch(version) or not any(place.is_dir() for place in places):
                raise self._unknown(version)
        return folder

    def _unknown(self, version: str) -> StoreError:
        known = ", ".join(self.versions()[-5:]) or "none"
        return StoreError(f"no version {version!r} in {self.root} (newest: {known})")

    def _reserve_name(self, name: str) -> Path:
        if not _VERSION.fullmatch(name):
            raise StoreError(f"{name!r} can't be a version: its letters must be a-z, 0-9, - and .")
        self._versions.mkdir(parents=True, exist_ok=True)
        for folder in (self._versions / each for each in _names(name)):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                if not deletion.pending_path(folder).exists():
                    return folder
                # The folder may be put back, so the name is free only after the deletion.
                with contextlib.suppress(OSError):
                    folder.rmdir()
        raise AssertionError("names never end")


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:  # listed nevertheless; loading it reports the fault
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
    except BundleError:  # listed nevertheless, so that a person sees it
        return "", folder.name


def _remove(folder: Path) -> None:
    # The manifest is removed first: an interrupted removal leaves no version.
    atomic_files.remove(folder, first=MANIFEST)
