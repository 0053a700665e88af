"""`peerloan models delete`: only versions that are no longer needed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import update

from helpers.apps import create_app
from helpers.commands import Run
from helpers.paths import FORMATS
from helpers.stores import VersionOf
from peerloan import atomic_files
from peerloan.database import Database, tables
from peerloan.ledger import Version
from peerloan.ledger.challenger_scores import ScoredByChallenger, store_challenger_scores
from peerloan.registry import Draft, Store, StoreError, StoreFault
from peerloan.registry.manifest import MANIFEST, read_manifest
from peerloan.settings import Settings

Action = Callable[[Store, str], object]


def refused(run: Run, store: Store, version: str, words: str, ledger: str = "") -> None:
    done = run("models", "delete", version, ledger=ledger)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert store.load(version)


def test_a_version_that_nothing_needs_is_deleted(
    store: Store, version_of: VersionOf, run: Run
) -> None:
    version, other = version_of("additive"), version_of("basic")
    done = run("models", "delete", version)
    assert done.returncode == 0, done.stderr
    assert f"deleted {version}" in done.stderr
    assert store.versions() == [other]
    assert not (store.root / "versions" / version).exists()
    again = run("models", "delete", version)
    assert again.returncode == 1
    assert f"no version '{version}'" in again.stderr


def test_what_an_alias_or_a_rollback_needs_is_refused(
    store: Store, version_of: VersionOf, run: Run
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    store.challenge(second)
    refused(run, store, first, "is the champion")
    refused(run, store, second, "is the challenger")
    store.promote(second)
    refused(run, store, first, "`rollback` can return to it")
    store.rollback()
    assert run("models", "delete", second).returncode == 0, "no rollback leads there"


def test_what_a_decision_needs_is_refused_until_it_is_purged(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    ledger_url: str,
    run: Run,
    tmp_path: Path,
) -> None:
    database = Database(ledger_url)
    database.upgrade()
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    client = create_app(
        Settings(store.root, tmp_path / "tokens", ledger_url), on_loopback=True
    ).test_client()
    answer = client.post("/v1/predictions", json=[loan] * 3)
    assert answer.status_code == 200, answer.text
    store.promote(second)
    store.rollback()
    store.promote(second)
    store.rollback()
    challenger = Version(second, store.read(second)[1], 0.05)
    ids = [UUID(each["id"]).bytes for each in answer.json["predictions"]]  # type: ignore[index]
    store_challenger_scores(database, [ScoredByChallenger(ids[0], challenger, 0.1, -2.197)])
    refused(run, store, second, "1 decision in the ledger refers to it", ledger_url)
    refused(run, store, first, "3 decisions in the ledger refer to it", ledger_url)
    with database.writing() as connection:
        erased = dict.fromkeys(("inputs", "margin", "probability", "late", "band"))
        connection.execute(update(tables.decisions).values(erased))
        connection.execute(tables.challenges.delete())
    assert run("models", "delete", second, ledger=ledger_url).returncode == 0
    refused(run, store, first, "is the champion", ledger_url)


@pytest.mark.parametrize("url", ["postgresql://peerloan@127.0.0.1:1/ledger", "nosuch://x"])
def test_a_ledger_that_can_not_be_asked_is_a_reason(
    store: Store, version_of: VersionOf, run: Run, url: str
) -> None:
    version = version_of("additive")
    done = run("models", "delete", version, ledger=url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert store.load(version)
    if url.startswith("postgresql"):
        assert "the ledger can't be searched" in done.stderr


# At the same time


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Store, Draft]]:
    """A store with a champion that was one twice over, and a draft of more versions."""
    folder = FORMATS / "format-1-scorecard" / "small-scorecard-1-1"
    manifest, _ = read_manifest(folder)
    draft = Draft(manifest, {name: (folder / name).read_bytes() for name in manifest.files})
    store = Store(tmp_path / "small")
    store.promote(store.publish(draft))
    yield store, draft
    state = store.state()
    assert {state.champion, *state.rollback_line} <= set(store.versions())
    for version in store.versions():
        store.load(version)
    assert not [*store.root.glob("versions/.*")], "nothing is left aside"
    assert [each.number for each in store.history()] == [*range(1, state.number + 1)]


def together(store: Store, version: str, *actions: Action) -> list[str]:
    """What each was told that did its part at the same time as the others: nothing, if it won."""
    barrier = threading.Barrier(len(actions))
    told = [""] * len(actions)

    def act(i: int) -> None:
        barrier.wait(timeout=60)
        try:
            actions[i](Store(store.root), version)
        except ValueError as error:  # StoreError and BundleError
            told[i] = str(error)

    threads = [threading.Thread(target=act, args=(i,)) for i in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return told


@pytest.mark.parametrize(
    ("choose", "rounds"), [(Store.promote, 100), (Store.challenge, 40), (Store.delete, 40)]
)
def test_one_of_two_wins_and_the_other_is_told(
    small: tuple[Store, Draft], choose: Action, rounds: int
) -> None:
    store, draft = small
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(rounds):
            version = store.publish(draft)
            told = together(store, version, Store.delete, choose)
            assert told.count("") == 1, told
            assert (version in store.versions()) == bool(told[0] and choose is not Store.delete)
            state = store.state()
            assert (version in state.in_use) == (choose is not Store.delete and not told[1])
            assert state.champion in store.versions()
    finally:
        sys.setswitchinterval(switch)


def test_a_roll_back_keeps_its_version_whoever_deletes(small: tuple[Store, Draft]) -> None:
    store, draft = small
    first = str(store.state().champion)
    for _ in range(10):
        second = store.publish(draft)
        store.promote(second)
        told = together(store, first, Store.delete, lambda here, _: here.rollback())
        assert "can't be deleted" in told[0]
        assert told[1] == ""
        assert store.state().champion == first
        # The one that was rolled back from may go: at once, or after the roll-back was done.
        store.promote(second)
        told = together(store, second, Store.delete, lambda here, _: here.rollback())
        assert told[1] == "" or "another process changed the aliases" in told[1]
        if second in store.state().in_use:
            store.rollback()


def test_commands_at_the_same_time(small: tuple[Store, Draft], tmp_path: Path, run: Run) -> None:
    store, draft = small
    (tmp_path / "store").symlink_to(store.root)
    for _ in range(3):
        version = store.publish(draft)
        with ThreadPoolExecutor() as both:
            commands = [both.submit(run, "models", what, version) for what in ("delete", "promote")]
        done = [command.result() for command in commands]
        assert sorted(each.returncode for each in done) == [0, 1], done
        assert not any("Traceback" in each.stderr for each in done)
        assert (version in store.versions()) == (store.state().champion == version)


def test_a_release_before_that_chooses_late_is_told(small: tuple[Store, Draft]) -> None:
    """It reads the aliases, loads the version, and then takes the next number."""
    store, draft = small
    version = store.publish(draft)
    before = store.state()
    store.load(version)
    store.delete(version)
    number = before.number + 1
    with pytest.raises(FileExistsError):
        atomic_files.publish_file(store.root / "aliases" / f"{number:06d}.json", b"{}")
    deletion = store.history()[-1]
    assert (deletion.what, deletion.deleted, deletion.champion) == (
        *("delete", version),
        before.champion,
    )
    assert deletion.action == "challenge", "an action that the release before knows"


@pytest.mark.parametrize("choose", [Store.promote, Store.challenge])
def test_what_a_release_before_deletes_under_a_choice_is_not_chosen(
    small: tuple[Store, Draft], choose: Action, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asked before the choice, and removes the folder right after: nothing holds it back."""
    store, draft = small
    version, before = store.publish(draft), store.state()
    publish = atomic_files.publish_file

    def publish_and_lose(path: Path, content: bytes) -> None:
        publish(path, content)
        monkeypatch.setattr(atomic_files, "publish_file", publish)
        atomic_files.remove(store.root / "versions" / version, first=MANIFEST)

    monkeypatch.setattr(atomic_files, "publish_file", publish_and_lose)
    with pytest.raises(StoreError, match=f"{version} was deleted at the same time"):
        choose(store, version)
    state = store.state()
    assert (state.champion, state.challenger, state.rollback_line) == (
        before.champion,
        None,
        before.rollback_line,
    )
    assert store.load(str(state.champion))


def test_a_deletion_that_was_cut_short_is_ended_or_taken_back(
    small: tuple[Store, Draft], tmp_path: Path, run: Run
) -> None:
    store, draft = small
    (tmp_path / "store").symlink_to(store.root)
    champion, version = str(store.state().champion), store.publish(draft)
    for each in (champion, version):
        folder = store.root / "versions" / each
        folder.rename(folder.with_name(f".{each}.deleting"))
    assert store.versions() == []
    listed = run("models", "list")
    assert listed.returncode == 0, listed.stderr
    assert f"{version} is being deleted" in listed.stderr
    assert f"complete it by `peerloan models delete {version}`" in listed.stderr
    assert champion in listed.stdout, "what an alias names is put back"
    assert store.versions() == [champion]
    assert store.publish(draft) not in (champion, version), "the name is not free yet"
    refused_now = run("models", "promote", version)
    assert (refused_now.returncode, "is being deleted" in refused_now.stderr) == (1, True)
    assert run("models", "delete", version).returncode == 0
    assert "is the champion" in run("models", "delete", champion).stderr


def test_a_version_that_is_deleted_before_it_is_published_is_none(
    small: tuple[Store, Draft], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, draft = small
    write, versions = atomic_files.write, store.versions()

    def write_and_lose(path: Path, content: bytes) -> None:
        monkeypatch.setattr(atomic_files, "write", write)
        write(path, content)
        store.delete(path.parent.name)

    monkeypatch.setattr(atomic_files, "write", write_and_lose)
    with pytest.raises(StoreFault, match="can't be written"):
        store.publish(draft)
    assert store.versions() == versions
