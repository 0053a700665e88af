"""The store: all model versions and their aliases, in two folders.

`versions/V/` is written once, with its manifest last. A folder without a manifest is not a version.
`aliases/000017.json` is the complete alias state after the seventeenth change. It is created only
if it is absent, so of two concurrent changes one fails. The file with the highest number is the
current state; all files together are the history. A reason that is added to an earlier change is a
separate file (see `change_reasons`).
"""

from __future__ import annotations

import contextlib
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
from peerloan.registry.version_folders import (
    has_manifest,
    list_versions,
    reserve_folder,
    version_exists,
)


class Store:
    """A store of model versions in a folder. The first publication creates the folder.

    Atomicity: a version appears complete or not at all, because its manifest is written last. An
    alias change appears complete or not at all, because its numbered file is created only if
    absent; of two concurrent changes one raises StoreError. Two reads are not one transaction: a
    version can be deleted between them.

    Thread safety: any number of threads, processes and machines may use a store at the same time.
    Nothing is cached; each read reads the files.

    Errors: StoreError if a request is refused, BundleError if a version can't be verified,
    StoreFault if the folder can't be read or written. Most methods raise StoreTimeout, a
    StoreFault, if the file system does not respond in time. The abandoned call may still complete.
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
        return list_versions(self._versions)

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

        A version that was promoted or was the challenger before must still have the same digest.
        """
        bundle = Bundle.read(self.folder(version))
        state = self.state()
        if state.digests.get(version, bundle.digest) != bundle.digest:
            raise BundleError(
                f"{version}: was changed after it was promoted or became the challenger: expected "
                f"the digest {state.digests[version][:12]}…, given {bundle.digest[:12]}…"
            )
        return bundle

    @limited("checking")
    def load_servable(self, version: str) -> Bundle:
        """Load a version that a service can serve. Raises StoreError or BundleError."""
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

        The name is reserved first, because the documents contain it. Raises StoreError,
        BundleError or StoreFault.
        """
        self.check_model(draft.manifest.model)
        now = datetime.now(UTC)
        try:
            folder = reserve_folder(
                self._versions, f"{draft.manifest.candidate}-{now:%Y%m%d-%H%M%S}"
            )
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
        """Read the estimator of an ONNX version. Raises BundleError."""
        return read_onnx_parts(self.folder(version))

    @limited("publishing a copy of", is_writing=True, is_long=True)
    def publish_with_policy(
        self,
        version: str,
        policy: Policy,
        write_documents: DocumentWriter = write_no_documents,
    ) -> str:
        """Publish a copy of a version with another policy. Returns the name of the copy."""
        return self.publish(
            with_policy(self.load(version), self.folder(version), policy, write_documents)
        )

    @limited("deleting", is_writing=True)
    def delete(self, version: str) -> None:
        """Delete a version. Raises StoreError if it is in use.

        In use are the champion, the challenger, and versions that `rollback` can return to. First
        the folder gets a hidden name, so no other process can promote the version any more. Then
        the deletion is recorded as the next alias change. Another process may have loaded the
        version before and change an alias to it at the same time. If the deletion is recorded
        first, that change fails. If that change is first, the deletion is refused and the folder is
        put back.
        """
        refuse_in_use(version, self.state())
        folder = self.version_folder(version)
        try:
            if not deletion.hide(folder):
                raise self._unknown(version)
            try:
                self._aliases.append(lambda state: after_deletion(version, state))
            except BaseException:
                deletion.put_back(folder)
                raise
            if not deletion.discard(folder):
                raise StoreError(
                    f"{version}: another process deleted it or put it back at the same time; look "
                    "at `peerloan models list`"
                )
        except OSError as error:
            raise StoreFault(f"{folder}: can't be deleted: {error.strerror}") from error

    @limited("looking for deletions in progress")
    def pending_deletions(self) -> list[str]:
        """List the versions whose deletion is in progress or was interrupted."""
        return deletion.list_pending(self._versions)

    def check_model(self, name: str) -> None:
        """Raise StoreError if the store contains versions of another model."""
        model = self._model()
        if model not in (None, name):
            raise StoreError(
                f"{self.root} contains versions of the model '{model}'; use another store for "
                f"'{name}'"
            )

    def _model(self) -> str | None:
        """Return the name of the store's model.

        It is the model of the champion, or else of the oldest version that can be read.
        """
        champion = self.state().champion
        for version in sorted(self.versions(), key=lambda name: name != champion):
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

    @limited("reading the reasons of changes")
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
        """Make a version the champion.

        `why` and `who` are recorded; by default `who` is the user of this process. With
        `breaking`, the new champion may refuse loans that the old one accepts. With `first`, the
        version is promoted only if there is no champion. Raises BundleError, BreakingChange or
        StoreError.
        """
        state = self.state()
        if first and state.champion is not None:
            raise StoreError(
                f"{version} is not promoted: {state.champion} became the champion meanwhile"
            )
        new = self._load_candidate(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is already the champion")
        if not breaking and (reasons := self._breaking_changes(state.champion, new.definition)):
            raise BreakingChange(version, reasons)
        return self._change_alias(
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

        `why` and `who` are recorded; by default `who` is the user of this process.
        """
        state = self.state()
        new = self._load_candidate(version, state)
        if state.champion == version:
            raise StoreError(f"{version} is the champion; the challenger must be another version")
        digests = state.digests | {version: new.digest}
        return self._change_alias(
            version, state, why, action="challenge", challenger=version, digests=digests, who=who
        )

    @limited("dismissing the challenger", is_writing=True)
    def dismiss(self, why: str = "") -> AliasState:
        """Remove the challenger from its alias. Raises StoreError if there is none."""
        state = self.state()
        if state.challenger is None:
            raise StoreError("there is no challenger")
        # The file has an action that earlier releases can read.
        return self._aliases.change(state, why, action="challenge", challenger=None)

    @limited("rolling back", is_writing=True)
    def rollback(self, why: str = "") -> AliasState:
        """Make the previous champion the champion again. Each call goes back by one version."""
        state = self.state()
        if len(state.rollback_line) < 2:
            raise StoreError("there is no champion before the current one")
        line = state.rollback_line[:-1]
        self.load_servable(line[-1])
        return self._change_alias(
            line[-1],
            state,
            why,
            action="rollback",
            champion=line[-1],
            challenger=None if state.challenger == line[-1] else state.challenger,
            rollback_line=line,
        )

    def known_fields(self, state: AliasState) -> frozenset[str]:
        """Return the fields of champion, challenger and former champions.

        Requests may contain any of them.
        """
        names: set[str] = set()
        for version in {*state.past_champions, state.champion, state.challenger} - {None}:
            # The champion must be served even if another version can't be read.
            with contextlib.suppress(RegistryError):
                definition = self.definition(str(version))
                names.update(definition.names, definition.roles.columns())
        return frozenset(names)

    def _load_candidate(self, version: str, state: AliasState) -> Bundle:
        """Load a version that is to become champion or challenger.

        Raises StoreError or BundleError unless it verifies, can be served, and is a version of the
        store's model.
        """
        bundle = self.load_servable(version)
        if state.champion is not None:
            self.check_model(bundle.manifest.model)
        return bundle

    def _breaking_changes(self, champion: str | None, new: Definition) -> list[str]:
        """Return how a new definition breaks requests that are valid for the champion."""
        if champion is None:
            return []
        try:
            old = self.definition(champion)
        except RegistryError:  # the champion can't be read, so there is nothing to compare
            return []
        return breaking_changes(old, new)

    def _change_alias(
        self, version: str, before: AliasState, why: str, **changes: Any
    ) -> AliasState:
        """Point an alias at a version. Raises StoreError if it was deleted at the same time."""
        new = self._aliases.change(before, why, **changes)
        with contextlib.suppress(RegistryError):
            if has_manifest(self.folder(version)):
                return new
        # An earlier release or a person has removed the folder without a check of the aliases.
        state = self._aliases.append(lambda newest: without_deleted(version, before, newest))
        raise StoreError(
            f"{version} was deleted at the same time; the champion is {state.champion or 'none'}"
        )

    @limited("looking for")
    def folder(self, version: str) -> Path:
        """Return the folder of a version. Raises StoreError if there is none of this name.

        If an alias names the version, its deletion will be refused or was interrupted. Then the
        folder is put back.
        """
        folder = self.version_folder(version)
        if not folder.is_dir() and version in self.state().in_use:
            with contextlib.suppress(OSError):
                deletion.put_back(folder)
        if not folder.is_dir():
            raise StoreError(
                f"{version} is being deleted; if the deletion was interrupted, complete it by "
                f"`peerloan models delete {version}`"
            )
        return folder

    @limited("looking for the path of")
    def version_folder(self, version: str) -> Path:
        """Return the regular path of a version's folder, which may have a hidden name now.

        Raises StoreError if there is no version of this name.
        """
        if not version_exists(self._versions, version):
            raise self._unknown(version)
        return self._versions / version

    def _unknown(self, version: str) -> StoreError:
        newest = ", ".join(self.versions()[-5:]) or "none"
        return StoreError(f"no version {version!r} in {self.root} (newest: {newest})")


def _remove(folder: Path) -> None:
    # The manifest is removed first, so that an interrupted removal leaves no version.
    atomic_files.remove(folder, first=MANIFEST)
