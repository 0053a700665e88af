"""`peerloan bootstrap`: the first champion of a new store; a second call changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.commands import Run
from helpers.stores import VersionOf
from peerloan.cli import main
from peerloan.cli.commands import bootstrap
from peerloan.registry import Store
from peerloan.training import PublishedCandidate


@pytest.mark.longer
def test_an_empty_store_gets_a_champion_trained_on_the_sample_once(
    run: Run, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    done = run("bootstrap")
    assert done.returncode == 0, done.stderr
    champion = store.state().champion
    assert champion is not None
    assert done.stderr.splitlines()[-1] == f"champion: {champion}"
    assert store.manifest(champion).trained_on.sample
    assert "built-in sample" in store.state().why

    versions = store.versions()
    again = run("bootstrap")
    assert again.returncode == 0
    assert again.stderr == f"champion: {champion}; nothing to do\n"
    assert store.versions() == versions
    assert store.state().number == 1


@pytest.mark.longer
def test_the_first_champion_can_be_trained_on_a_book_with_a_definition(
    run: Run, tmp_path: Path, sample_book: Path
) -> None:
    """The book has two numbers of the sample under other names, like another lender's table."""
    rows = [line.split(",") for line in sample_book.read_text("utf-8").splitlines()]
    at = [rows[0].index(name) for name in ("int_rate", "dti", "is_late")]
    lines = ["rate,burden,gone", *(",".join(row[i] for i in at) for row in rows[1:2001])]
    (tmp_path / "first.csv").write_text("\n".join(lines) + "\n", "utf-8")
    defined = run("define", "first.csv", "--label", "gone", "--late", "1", "-o", "loan.toml")
    assert defined.returncode == 0, defined.stderr

    done = run("bootstrap", "first*", "--definition", "loan.toml")

    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "store")
    champion = str(store.state().champion)
    assert store.definition(champion).names == ("rate", "burden")
    assert store.manifest(champion).trained_on.source == "first*"
    assert len(store.versions()) == 5, "every candidate was tried"


def test_a_missing_book_is_one_error_line_and_no_champion(run: Run, tmp_path: Path) -> None:
    done = run("bootstrap", "nothing.csv")
    assert done.returncode == 1
    assert "nothing.csv" in done.stderr
    assert "Traceback" not in done.stderr
    assert Store(tmp_path / "store").state().champion is None


def test_a_champion_that_was_promoted_during_training_stays(
    store: Store,
    version_of: VersionOf,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, theirs = version_of("additive"), version_of("basic")

    def train(_path: Path, store: Store) -> list[PublishedCandidate]:
        store.promote(theirs, "by hand")
        return [PublishedCandidate("additive", mine, {}, is_chosen=True)]

    monkeypatch.setenv("PEERLOAN_STORE", str(store.root))
    monkeypatch.setattr(bootstrap, "train_on_sample", train)
    main(["bootstrap"])

    assert f"{theirs} became the champion meanwhile" in capsys.readouterr().err
    assert store.state().champion == theirs
    assert store.state().why == "by hand"
