"""The store: versions that are written once, and aliases that change one numbered state a time."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from peerloan.loan import Definition, Field, Label, Loans
from peerloan.model import NumberTable, Policy, ReferenceProfile, Scorecard
from peerloan.registry import (
    AliasState,
    BreakingChange,
    BundleError,
    Draft,
    Manifest,
    Store,
    StoreError,
    StoreFault,
    TrainedOn,
    ValidationFigures,
    draft,
)
from peerloan.registry import store as store_module
from peerloan.registry.change_reasons import MAX_REASON_LENGTH

INCOME = Field("income", "number", "Income", above=0)


def drafted(
    *fields: Field, candidate: str = "tiny", model: str = "toys", base: float = -2.0
) -> Draft:
    """A version of number fields (by default one, income), the same score for every loan."""
    fields = fields or (INCOME,)
    definition = Definition(model, Label("late?", "yes", "no"), fields)
    loans = Loans.of(definition, [tuple(float(i + 1) for _ in fields) for i in range(4)])
    column = loans.numbers(fields[0].name)
    return draft(
        candidate=candidate,
        definition=definition,
        estimator=Scorecard(base, tuple(NumberTable(f.name, (), (0.0,), 0.0) for f in fields)),
        policy=Policy.by_cost(),
        profile=ReferenceProfile.of(loans, column * 0, column * 0 + 0.1),
        trained_on=TrainedOn("nothing", "0", 4, 0, sample=False),
        validation=ValidationFigures({"auc": 0.5}, {}, (), ()),
        libraries={},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def abc(store: Store) -> tuple[str, str, str]:
    """Three versions, in the order of publication."""
    return tuple(store.publish(drafted(candidate=name)) for name in "abc")  # type: ignore[return-value]


# Versions


def test_a_store_that_is_not_there_is_empty(store: Store) -> None:
    assert store.versions() == []
    assert store.history() == []
    assert store.state() == AliasState()
    assert store.state().champion is None
    assert not store.changed_since(0)
    assert not store.root.exists(), "looking creates nothing"


def test_a_published_version_is_listed_and_loads(store: Store) -> None:
    version = store.publish(drafted())
    assert store.versions() == [version]
    assert store.load(version).version == version
    assert store.manifest(version).model == "toys"
    assert store.definition(version).names == ("income",)
    assert store.state() == AliasState(), "publishing promotes nothing"
    folder = store.root / "versions" / version
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        *store.manifest(version).files,
    }, "and nothing is left lying about"


def test_versions_are_listed_oldest_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        seconds = 0

        @classmethod
        def now(cls, _tz: object = None) -> datetime:  # type: ignore[override]
            cls.seconds += 1
            return datetime(2030, 1, 1, 0, 0, cls.seconds, tzinfo=UTC)

    monkeypatch.setattr(store_module, "datetime", Clock)
    published = [store.publish(drafted(candidate=name)) for name in ("z", "m", "a")]
    assert store.versions() == published
    assert published[0] == "z-20300101-000001"


def test_names_are_unique_when_published_in_the_same_second(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, _tz: object = None) -> datetime:  # type: ignore[override]
            return datetime(2030, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(store_module, "datetime", Stopped)
    first = store.publish(drafted())
    again = store.publish(drafted())
    third = store.publish(drafted())
    assert [first, again, third] == [
        "tiny-20300101-000000",
        "tiny-20300101-000000-2",
        "tiny-20300101-000000-3",
    ]
    assert store.versions() == [first, again, third]
    assert [store.load(version).version for version in (first, again, third)] == [
        first,
        again,
        third,
    ]


def test_publishers_at_once_each_get_a_name_of_their_own(store: Store) -> None:
    made = drafted()
    found = together(8, lambda _: Store(store.root).publish(made))
    assert len(set(found)) == 8
    assert sorted(store.versions()) == sorted(map(str, found))
    for version in store.versions():
        store.load(version)


def test_a_folder_that_is_no_version_is_ignored(store: Store, abc: tuple[str, str, str]) -> None:
    versions = store.root / "versions"
    (versions / "half-20300101-000000").mkdir()
    (versions / "half-20300101-000000" / "loan.json").write_text("{}")
    (versions / "README.md").write_text("what this is")
    (versions / ".snapshot").mkdir()
    shutil.copytree(versions / abc[0], versions / "Copy of a")
    shutil.copytree(versions / abc[0], versions / ".trash")
    assert store.versions() == list(abc)
    for name in store.versions():
        store.manifest(name)
    store.publish(drafted())


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../versions/{}",
        "./{}",
        "{}/",
        "{}/../{}",
        "{}\n",
        "/etc",
        "{}\x00",
        "-x",
        "A" * 300,
        "a" * 300,
        "\udcff",
    ],
)
def test_a_name_that_is_no_version_is_refused(
    store: Store, abc: tuple[str, str, str], name: str
) -> None:
    version = name.replace("{}", abc[0])
    store.promote(abc[1])
    before = store.state()
    for attempt in (
        store.load,
        store.manifest,
        store.definition,
        store.promote,
        store.challenge,
    ):
        with pytest.raises(StoreError, match="no version"):
            attempt(version)
    assert store.state() == before


def test_a_refused_name_comes_with_the_newest_ones(store: Store, abc: tuple[str, str, str]) -> None:
    with pytest.raises(StoreError) as caught:
        store.load("nope")
    assert all(version in str(caught.value) for version in abc)


def test_a_store_holds_one_model(store: Store) -> None:
    store.publish(drafted())
    with pytest.raises(StoreError, match=r"'toys'; use another store for 'furniture'"):
        store.publish(drafted(model="furniture"))
    assert len(store.versions()) == 1
    assert len(list((store.root / "versions").iterdir())) == 1


def test_an_unreadable_version_keeps_nobody_from_publishing(store: Store) -> None:
    version = store.publish(drafted())
    (store.root / "versions" / version / "manifest.json").write_text('{"format": 99}')
    assert store.versions() == [version], "listed all the same, so that somebody sees it"
    new = store.publish(drafted(candidate="new"))
    store.promote(new)
    with pytest.raises(StoreError, match="use another store for 'furniture'"):
        store.publish(drafted(model="furniture"))


@pytest.mark.parametrize("candidate", ["My Model", "../x", "", "-", "a/b", "é", "x" * 120, "a\n"])
def test_a_candidate_whose_version_could_not_be_asked_for_is_not_published(
    store: Store, candidate: str
) -> None:
    with pytest.raises(StoreError):
        store.publish(drafted(candidate=candidate))
    assert not store.root.exists() or not list((store.root / "versions").iterdir())


def test_a_draft_that_does_not_verify_is_not_published(store: Store) -> None:
    made = drafted()
    golden = made.manifest.golden[0]
    wrong = msgspec.structs.replace(golden, margin=golden.margin + 1)
    manifest = msgspec.structs.replace(made.manifest, golden=(wrong,))
    with pytest.raises(BundleError, match="does not reproduce"):
        store.publish(Draft(manifest, made.files))
    assert store.versions() == []
    assert not list((store.root / "versions").iterdir())


# Aliases


def test_promote_makes_the_champion(store: Store, abc: tuple[str, str, str]) -> None:
    a, _, _ = abc
    assert not store.changed_since(0)
    state = store.promote(a, "first")
    assert store.state() == state
    assert (state.number, state.champion, state.challenger) == (1, a, None)
    assert state.past_champions == state.rollback_line == (a,)
    assert store.changed_since(0)
    assert not store.changed_since(1)


def test_promoting_the_champion_is_refused(store: Store, abc: tuple[str, str, str]) -> None:
    a, _, _ = abc
    state = store.promote(a)
    with pytest.raises(StoreError, match="is already the champion"):
        store.promote(a)
    assert store.state() == state


def test_the_champion_can_not_become_the_challenger(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, _ = abc
    store.promote(a)
    with pytest.raises(StoreError, match="the challenger must be another version"):
        store.challenge(a)
    state = store.challenge(b)
    assert (state.champion, state.challenger) == (a, b)
    assert state.past_champions == (a,), "a challenger was never champion"


def test_a_challenger_is_dismissed_and_the_champion_stays(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, _ = abc
    store.promote(a)
    with pytest.raises(StoreError, match="there is no challenger"):
        store.dismiss()
    assert store.challenge(b, "drift", who="monitor").who == "monitor"
    state = store.dismiss("not better")
    assert (state.champion, state.challenger, state.why) == (a, None, "not better")
    assert b in store.versions()


def test_a_promoted_challenger_is_no_challenger_any_more(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, c = abc
    store.promote(a)
    store.challenge(b)
    assert store.promote(c).challenger == b, "another's promotion leaves it"
    state = store.promote(b)
    assert (state.champion, state.challenger) == (b, None)


def test_a_challenger_that_is_rolled_back_to_is_no_challenger_any_more(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, _ = abc
    store.promote(a)
    store.promote(b)
    store.challenge(a)
    state = store.rollback()
    assert (state.champion, state.challenger) == (a, None)


def test_rollback_returns_to_the_champion_before_and_again_one_further(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, c = abc
    for version in abc:
        store.promote(version)
    assert store.rollback().champion == b
    assert store.rollback().champion == a
    state = store.state()
    with pytest.raises(StoreError, match="no champion before"):
        store.rollback()
    assert store.state() == state
    assert set(state.past_champions) == {a, b, c}


def test_rollback_without_a_champion_is_refused(store: Store, abc: tuple[str, str, str]) -> None:
    with pytest.raises(StoreError, match="no champion before"):
        store.rollback()
    store.challenge(abc[0])
    with pytest.raises(StoreError, match="no champion before"):
        store.rollback()


def test_a_promotion_after_a_rollback_starts_from_there(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, c = abc
    store.promote(a)
    store.promote(b)
    store.rollback()
    store.promote(c)
    assert store.rollback().champion == a, "not b, which was taken back"


def test_a_version_may_be_champion_twice(store: Store, abc: tuple[str, str, str]) -> None:
    a, b, _ = abc
    store.promote(a)
    store.promote(b)
    state = store.promote(a)
    assert state.past_champions == (a, b)
    assert store.rollback().champion == b
    assert store.rollback().champion == a


def test_the_history_is_whole_and_says_who_when_and_why(
    store: Store, abc: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = abc
    monkeypatch.setenv("LOGNAME", "ada")
    store.promote(a, "the first")
    store.challenge(b, "in shadow")
    monkeypatch.setenv("LOGNAME", "grace")
    store.promote(b, "better: ünd so \N{PARTY POPPER} [/x]")
    store.rollback("worse")
    history = store.history()
    assert [each.number for each in history] == [1, 2, 3, 4]
    assert [each.action for each in history] == ["promote", "challenge", "promote", "rollback"]
    assert [each.champion for each in history] == [a, a, b, a]
    assert [each.challenger for each in history] == [None, b, None, None]
    assert [each.who for each in history] == ["ada", "ada", "grace", "grace"]
    assert history[2].why == "better: ünd so \N{PARTY POPPER} [/x]"
    times = [datetime.fromisoformat(each.when) for each in history]
    assert times == sorted(times)
    assert all(each.tzinfo is not None for each in times)
    assert history[-1] == store.state()
    files = {path.name: path.read_bytes() for path in (store.root / "aliases").iterdir()}
    assert sorted(files) == [f"00000{i}.json" for i in (1, 2, 3, 4)]
    store.promote(c)
    for name, content in files.items():
        assert (store.root / "aliases" / name).read_bytes() == content, "never changed again"


def test_a_reason_that_is_no_unicode_is_kept_readable(
    store: Store, abc: tuple[str, str, str]
) -> None:
    store.promote(abc[0], "caf\udce9")
    assert store.state().why == "caf\\udce9"


# Reasons that are added later


def test_a_reason_is_added_beside_the_change_which_stays_as_it_was(
    store: Store, abc: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    store.promote(abc[0])
    store.challenge(abc[1])
    before = {path.name: path.read_bytes() for path in (store.root / "aliases").iterdir()}
    history = store.history()
    monkeypatch.setenv("LOGNAME", "grace")
    added = store.explain_change(1, "b\u00fcsst: ünd so \N{PARTY POPPER}")
    assert (added.number, added.who) == (1, "grace")
    assert datetime.fromisoformat(added.when).tzinfo is not None
    assert store.explanations().by_number == {1: added}
    assert store.explain_change(2, "w" * MAX_REASON_LENGTH, who="anna").who == "anna"
    assert sorted(store.explanations().by_number) == [1, 2]
    after = {path.name: path.read_bytes() for path in (store.root / "aliases").iterdir()}
    assert {name: after[name] for name in before} == before
    assert (store.history(), store.state()) == (history, history[-1])
    # So the release that knew none reads the folder: other names are nobody's.
    states = [name for name in after if re.fullmatch(r"\d{6,}\.json", name)]
    assert sorted(states) == sorted(before)
    assert store.promote(abc[2]).number == 3
    assert not store.changed_since(3)


def test_a_change_that_has_a_reason_keeps_it(store: Store, abc: tuple[str, str, str]) -> None:
    store.promote(abc[0], "the best")
    store.promote(abc[1])
    store.explain_change(2, "worse, after all", who="anna")
    for number, named in ((1, "the best"), (2, r"worse, after all \(added later by anna on 20")):
        with pytest.raises(StoreError, match=f"change {number} already has a reason.*{named}"):
            store.explain_change(number, "another")
    assert store.explanations().by_number[2].why == "worse, after all"


def test_of_many_explanations_at_once_one_is_kept(store: Store, abc: tuple[str, str, str]) -> None:
    store.promote(abc[0])
    told = together(8, lambda i: store.explain_change(1, f"reason {i}").why)
    (kept,) = (each for each in told if isinstance(each, str))
    assert store.explanations().by_number[1].why == kept
    lost = [each for each in told if isinstance(each, StoreError)]
    assert len(lost) == 7
    assert all(kept in str(each) for each in lost)


@pytest.mark.parametrize("why", ["", "  ", "a\nb", "a\x00", "a\x85", "w" * (MAX_REASON_LENGTH + 1)])
def test_what_is_no_reason_is_refused(store: Store, abc: tuple[str, str, str], why: str) -> None:
    store.promote(abc[0])
    with pytest.raises(StoreError, match="why: expected text of 1 to 1,000 characters, without"):
        store.explain_change(1, why)
    assert store.explanations() == ({}, [])


@pytest.mark.parametrize("number", [-1, 0, 3, 10**30])
def test_an_unknown_change_is_refused_with_those_that_are_known(
    store: Store, abc: tuple[str, str, str], number: int
) -> None:
    with pytest.raises(StoreError, match="nothing was changed yet"):
        store.explain_change(number, "why not")
    store.promote(abc[0])
    store.promote(abc[1])
    with pytest.raises(StoreError, match=r"changes: 1 to 2"):
        store.explain_change(number, "why not")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"number": 2, "why": "x"}', b"\xff"])
def test_a_damaged_explanation_is_an_error_that_names_it(
    store: Store, abc: tuple[str, str, str], content: bytes
) -> None:
    state = store.promote(abc[0])
    (store.root / "aliases" / "000001.why.json").write_bytes(content)
    store.promote(abc[1])
    later = store.explain_change(2, "better")
    found = store.explanations()
    assert found.by_number == {2: later}, "it hides no other"
    (fault,) = found.faults
    assert "000001.why.json can't be read" in fault
    assert "move the file away" in fault
    with pytest.raises(StoreError, match=r"already has a reason: .*000001\.why\.json"):
        store.explain_change(1, "why not")
    assert store.history()[0] == state, "what serves does not depend on it"


def test_numbers_go_on_past_six_digits(store: Store, abc: tuple[str, str, str]) -> None:
    state = store.promote(abc[0])
    aliases = store.root / "aliases"
    far = msgspec.structs.replace(state, number=999_999)
    (aliases / "999999.json").write_bytes(msgspec.json.encode(far))
    assert store.promote(abc[1]).number == 1_000_000
    assert store.state().champion == abc[1]
    assert store.promote(abc[2]).number == 1_000_001


def test_stray_files_among_the_aliases_are_ignored(store: Store, abc: tuple[str, str, str]) -> None:
    state = store.promote(abc[0])
    for name in (".000002.json.0a1b2c3d", "000002.json.bak", "2.json", "notes.txt", "-00002.json"):
        (store.root / "aliases" / name).write_text("{")
    assert store.state() == state
    assert store.promote(abc[1]).number == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"number": 3}',
        b'{"number": 2, "champion": 7}',
        b'{"number": 2, "action": "erase"}',
        b'{"number": 2, "why": "\xff"}',
        b'{"number": 2, "x": %s}' % (b"[" * 100_000),
        b'{"number": 2, "x": NaN}',
    ],
)
def test_a_damaged_newest_state_is_an_error_and_changes_nothing(
    store: Store, abc: tuple[str, str, str], content: bytes
) -> None:
    store.promote(abc[0])
    path = store.root / "aliases" / "000002.json"
    path.write_bytes(content)
    for attempt in (
        store.state,
        store.history,
        store.rollback,
        lambda: store.promote(abc[1]),
        lambda: store.challenge(abc[1]),
    ):
        with pytest.raises(StoreFault, match=r"000002\.json"):
            attempt()
    assert sorted(p.name for p in path.parent.iterdir()) == ["000001.json", "000002.json"]


# Breaking changes


def test_a_promotion_that_would_refuse_todays_requests_lists_why(store: Store) -> None:
    old = store.publish(
        drafted(
            Field("income", "number", "Income", min=0, missing=True),
            Field("loans", "number", "Loans", max=50),
        )
    )
    new = store.publish(
        drafted(
            Field("income", "number", "Income", above=0, max=1e6),
            Field("loans", "whole", "Loans", max=50),
            Field("age", "number", "Age"),
        )
    )
    state = store.promote(old)
    with pytest.raises(BreakingChange) as caught:
        store.promote(new)
    assert isinstance(caught.value, StoreError)
    assert len(caught.value.reasons) == 4
    for words in (
        "income: may no longer be missing",
        "income: the range narrows",
        "loans: kind changes from number to whole",
        "age: is new and required",
    ):
        assert any(words in reason for reason in caught.value.reasons)
        assert words in str(caught.value)
    assert "--breaking" in str(caught.value)
    assert store.state() == state
    assert store.challenge(new).challenger == new, "a challenger answers nobody"
    assert store.promote(new, breaking=True).champion == new
    assert store.rollback().champion == old, "a rollback asks nobody"


def test_a_promotion_that_accepts_more_is_no_breaking_change(store: Store) -> None:
    old = store.publish(drafted(Field("income", "number", "Income", above=0, max=10)))
    new = store.publish(
        drafted(
            Field("income", "number", "Income", min=0, missing=True),
            Field("age", "number", "Age", missing=True),
        )
    )
    fewer = store.publish(drafted(Field("age", "number", "Age", missing=True)))
    store.promote(old)
    store.promote(new)
    assert store.promote(fewer).champion == fewer


def test_a_request_may_carry_what_champion_challenger_and_former_champions_know(
    store: Store,
) -> None:
    versions = {
        name: store.publish(drafted(Field(name, "number", name, missing=True)))
        for name in ("first", "second", "third", "never")
    }
    assert store.known_fields(store.state()) == frozenset()
    store.promote(versions["first"])
    store.promote(versions["second"])
    state = store.challenge(versions["third"])
    assert store.known_fields(state) == {"first", "second", "third"}
    state = store.rollback()
    assert store.known_fields(state) == {"first", "second", "third"}, "also after a rollback"
    (store.root / "versions" / versions["second"] / "loan.json").write_text("{}")
    shutil.rmtree(store.root / "versions" / versions["third"])
    assert store.known_fields(state) == {"first"}, "what can't be read blocks nothing"


def _remove(folder: Path) -> None:
    shutil.rmtree(folder)


def _damage(folder: Path) -> None:
    (folder / "loan.json").write_text("{}")


def _modernise(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"format": 2, "arithmetic": 1}))


@pytest.mark.parametrize("harm", [_remove, _damage, _modernise])
def test_an_unreadable_champion_does_not_block_its_successor(
    store: Store, abc: tuple[str, str, str], harm: Callable[[Path], None]
) -> None:
    a, b, c = abc
    store.promote(a)
    harm(store.root / "versions" / a)
    assert store.challenge(c).challenger == c
    assert store.promote(b).champion == b
    with pytest.raises((BundleError, StoreError)):
        store.rollback()
    assert store.state().champion == b
    assert store.publish(drafted()) in store.versions()
    assert [each.champion for each in store.history()] == [a, a, b]


# Races


def together(threads: int, act: Callable[[int], object]) -> list[object]:
    """What each thread's action gave or raised, all started at once."""
    barrier = threading.Barrier(threads)
    found: list[object] = [None] * threads

    def run(i: int) -> None:
        barrier.wait()
        try:
            found[i] = act(i)
        except Exception as error:
            found[i] = error

    started = [threading.Thread(target=run, args=(i,)) for i in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return found


def test_who_loses_a_race_is_told(
    store: Store, abc: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = abc
    store.promote(a)
    slow, fast = Store(store.root), Store(store.root)
    load = slow.load

    def load_while_another_promotes(version: str) -> object:
        fast.promote(c)
        return load(version)

    monkeypatch.setattr(slow, "load", load_while_another_promotes)
    with pytest.raises(StoreError, match=r"at the same time.*try again"):
        slow.promote(b)
    monkeypatch.undo()
    assert [each.champion for each in store.history()] == [a, c]
    assert sorted(path.name for path in (store.root / "aliases").iterdir()) == [
        "000001.json",
        "000002.json",
    ]
    assert slow.promote(b).number == 3


def test_of_many_at_once_one_wins_each_number_and_nothing_is_lost(store: Store) -> None:
    threads = 8
    versions = [store.publish(drafted(candidate=f"v{i}")) for i in range(threads)]
    for _ in range(5):
        before = store.history()
        found = together(
            threads, lambda i: Store(store.root).promote(versions[i], why=f"thread {i}")
        )
        won = [each for each in found if isinstance(each, AliasState)]
        lost = [each for each in found if not isinstance(each, AliasState)]
        assert all(isinstance(each, StoreError) for each in lost), lost
        assert won or all("already" in str(each) for each in lost)
        after = store.history()
        assert after[: len(before)] == before
        assert sorted(won, key=lambda state: state.number) == after[len(before) :]
        assert [each.number for each in after] == list(range(1, len(after) + 1))
        for last, now in itertools.pairwise(after):
            assert now.rollback_line == (*last.rollback_line, now.champion), (
                "each built on the one before"
            )


# Faults of the disk


def test_a_store_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    store = Store(tmp_path / "store")
    assert store.versions() == []
    with pytest.raises(StoreFault, match=r"store.*can't be written"):
        store.publish(drafted())


def test_aliases_that_are_a_file_are_an_error(store: Store, abc: tuple[str, str, str]) -> None:
    (store.root / "aliases").write_text("")
    with pytest.raises(StoreFault, match=r"aliases.*can't be written"):
        store.promote(abc[0])


# What was chosen


def test_a_version_that_was_changed_after_it_was_chosen_is_refused(
    store: Store, abc: tuple[str, str, str]
) -> None:
    a, b, c = abc
    store.promote(a)
    store.promote(b)
    store.challenge(c)
    for version in abc:
        path = store.root / "versions" / version / "manifest.json"
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"auc": 0.5', b'"auc": 0.9'))
        with pytest.raises(BundleError, match="was changed after it was promoted"):
            store.load(version)
        if version == a:
            with pytest.raises(BundleError, match="was changed after it was promoted"):
                store.rollback()
        with pytest.raises(BundleError, match="was changed after it was promoted"):
            store.publish_with_policy(version, Policy.by_cost(5.0))
        path.write_bytes(content)
        assert store.load(version).version == version
    assert store.rollback().champion == a


def test_a_version_of_another_model_is_not_chosen(store: Store, tmp_path: Path) -> None:
    own = store.publish(drafted())
    other = Store(tmp_path / "other")
    foreign = other.publish(drafted(candidate="foreign", model="games"))
    assert store.promote(own).champion == own
    shutil.copytree(other.root / "versions" / foreign, store.root / "versions" / foreign)
    for call in (store.challenge, store.promote):
        with pytest.raises(StoreError, match="contains versions of the model 'toys'; use another"):
            call(foreign)
    assert store.state().number == 1


def test_a_state_beyond_a_gap_is_seen(store: Store, abc: tuple[str, str, str]) -> None:
    store.promote(abc[0])
    state = store.promote(abc[1])
    assert not store.changed_since(2)
    later = msgspec.structs.replace(state, number=9)
    (store.root / "aliases" / "000009.json").write_bytes(msgspec.json.encode(later))
    assert store.changed_since(2)
    assert store.state().number == 9


def test_a_document_is_rendered_with_its_version_s_name(store: Store) -> None:
    def write(manifest: Manifest) -> dict[str, str]:
        return {"card.md": f"# {manifest.version} of {manifest.created}"}

    version = store.publish(replace(drafted(), write_documents=write))
    created = store.manifest(version).created
    assert store.document(version, "card.md") == f"# {version} of {created}"
    assert store.document(version, "report.html") is None


def test_no_text_of_a_document_is_replaced(store: Store) -> None:
    """Releases before marked the places of name and time by these characters."""
    text = "\N{REPLACEMENT CHARACTER}version \N{REPLACEMENT CHARACTER}created"
    version = store.publish(replace(drafted(), write_documents=lambda _manifest: {"card.md": text}))
    assert store.document(version, "card.md") == text


def test_a_document_that_cannot_be_rendered_leaves_no_version(store: Store) -> None:
    def write(manifest: Manifest) -> dict[str, str]:
        raise ValueError(manifest.version)

    with pytest.raises(ValueError, match=r"^tiny-"):
        store.publish(replace(drafted(), write_documents=write))
    assert store.versions() == []
    assert list((store.root / "versions").iterdir()) == []
