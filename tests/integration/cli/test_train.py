"""`train` and its options, `models policy` and `models compare`, as processes."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Run
from helpers.stores import VersionOf
from peerloan.registry import Store
from peerloan.sample_data import batches


def write(path: Path, loans: int, seed: int, every: int) -> Path:
    """Write a book with a column that is no feature.

    Every `every`-th loan is late, and a few more of those with high rates.
    """
    rows: list[dict[str, Any]] = [r for b in batches(loans, seed=seed) for r in b.to_pylist()]
    rows.sort(key=lambda row: row["int_rate"])
    for place, row in enumerate(rows):
        row["is_late"] = int(place % every == 0 or (place % 23 == 0 and place > loans / 2))
        row["loan_id"] = f"L{place}"
        row["region"] = ["north", "south", ""][place % 3]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return write(tmp_path / "book.csv", 700, seed=3, every=9)


@pytest.fixture
def later(tmp_path: Path) -> Path:
    return write(tmp_path / "later.csv", 1200, seed=4, every=5)


def version_folder(tmp_path: Path, version: str) -> Path:
    return tmp_path / "store" / "versions" / version


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    return read


# train


@pytest.mark.longer
def test_a_quick_run_with_an_aim_a_later_book_and_groups(
    run: Run, tmp_path: Path, book: Path, later: Path
) -> None:
    done = run(
        *("train", book, "--quick", "--aim", "capacity=0.1", "--later", later),
        *("--group", "home_ownership", "--group", "region", "--promote", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for line in (
        *("reading " + str(later), "trying settings on 700 loans"),
        *("boosted: evaluating and reporting", "publishing"),
    ):
        assert f"{line}\n" in done.stderr, "progress is a line for each finished step"
    output = json.loads(done.stdout)
    candidates = {each["candidate"]: each for each in output["candidates"]}
    # The forest is slow.
    assert set(candidates) == {"binned", "additive", "logistic", "boosted"}
    assert [each["chosen"] for each in output["candidates"]] == [True, False, False, False]
    best = output["candidates"][0]
    assert "has the best mean AUC" in best["why"]
    assert f"chosen: {best['why']}\n" in done.stderr
    assert f"report: {version_folder(tmp_path, best['version']) / 'report.html'}\n" in done.stderr
    store = Store(tmp_path / "store")
    assert store.state().champion == best["version"]
    for each in output["candidates"]:
        found = store.manifest(each["version"])
        assert found.metrics == each["metrics"]
        assert (found.policy.aim, found.policy.aim_value) == ("capacity", 0.1)
        # The mean over folds; at most a tenth of all loans together.
        assert 0 < each["metrics"]["flagged"] < 0.12
        # On so few loans, the calibrated margins may be nearly equal, and no loan is flagged.
        assert 0 <= each["metrics"]["later_flagged"] < 0.5
        assert 0 < each["metrics"]["later_auc"] < 1
        report = (version_folder(tmp_path, each["version"]) / "report.html").read_text("utf-8")
        for name in ("home_ownership", "region", "MORTGAGE", "north", "later.csv"):
            assert name in report, name
    assert run("models", "verify", best["version"]).returncode == 0


def test_the_printed_table_marks_the_chosen_candidate(
    run: Run, tmp_path: Path, book: Path, later: Path
) -> None:
    done = run(
        *("train", book, "--quick", "--candidate", "logistic", "--candidate", "additive"),
        *("--later", later, "--aim", "f2"),
    )
    assert done.returncode == 0, done.stderr
    head, first, second = done.stdout.splitlines()
    assert done.stderr.count(f"{book.name}: late is 1 in is_late: ") == 1
    assert head.split() == [
        *("version", "chosen", "auc", "recall", "flagged", "brier", "log_loss", "later_auc"),
    ]
    assert first.split()[1] == "yes"
    assert len(second.split()) == len(first.split()) - 1
    store = Store(tmp_path / "store")
    assert {store.manifest(version).policy.aim for version in store.versions()} == {"f2"}


def test_the_threshold_is_the_late_rate_unless_an_aim_is_named(
    run: Run, tmp_path: Path, book: Path
) -> None:
    train = ("train", book, "--quick", "--candidate", "logistic", "--json")
    done = run(*train)
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    (made,) = output["candidates"]
    rate = output["label"]["late_share"]
    policy = manifest(version_folder(tmp_path, made["version"]))["policy"]
    assert (policy["aim"], policy["aim_value"]) == ("balanced", 0.0)
    assert policy["threshold"] == pytest.approx(rate, abs=1e-9)
    shown = run("models", "show", made["version"]).stdout
    assert f"{policy['threshold']} (balanced)" in shown
    for name in ("report.html", "card.md"):
        text = (version_folder(tmp_path, made["version"]) / name).read_text("utf-8")
        assert "this is the late rate of its table" in text
        for aim in ("balanced", "cost=20", "capacity=0.1", "recall=0.8", "f2"):
            assert aim in text.split("Aims beside each other")[1]

    done = run(*train, "--aim", "cost=20")
    assert done.returncode == 0, done.stderr
    (costly,) = json.loads(done.stdout)["candidates"]
    by_cost = manifest(version_folder(tmp_path, costly["version"]))["policy"]
    assert (by_cost["aim"], by_cost["aim_value"]) == ("cost", 20.0)
    assert by_cost["threshold"] == pytest.approx(1 / 21, abs=1e-9)

    done = run("models", "policy", costly["version"], "--aim", "balanced")
    assert done.returncode == 0, done.stderr
    again = manifest(version_folder(tmp_path, done.stdout.strip()))["policy"]
    assert again == policy


@pytest.mark.longer
def test_a_threshold_that_flags_most_loans_is_noted(run: Run, book: Path) -> None:
    done = run("train", book, "--quick", "--candidate", "logistic", "--aim", "recall=0.99")
    assert done.returncode == 0, done.stderr
    assert re.search(r"note: the threshold flags \d+% of all loans", done.stderr)
    assert "--aim" in done.stderr


# train --recalibrate


@pytest.mark.longer
@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_recalibrate_publishes_a_version_and_leaves_the_old_one(
    run: Run, tmp_path: Path, store: Store, version_of: VersionOf, later: Path, candidate: str
) -> None:
    version = version_of(candidate)
    store.promote(version)
    before = contents(version_folder(tmp_path, version))
    done = run("train", later, "--recalibrate", version, "--promote", "--json")
    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["candidates"]
    new = output["version"]
    assert new != version
    assert f"champion: {new}" in done.stderr
    assert store.state().champion == new
    assert contents(version_folder(tmp_path, version)) == before
    old, changed = (
        manifest(version_folder(tmp_path, version)),
        manifest(version_folder(tmp_path, new)),
    )
    assert changed["recalibrated_on"]["loans"] == 1200
    assert changed["trained_on"] == old["trained_on"]
    assert changed["policy"]["aim"] == old["policy"]["aim"] == "balanced"
    assert changed["policy"]["threshold"] > 1.5 * old["policy"]["threshold"]
    assert "recalibrated_on" not in old
    assert run("models", "verify", new).returncode == 0
    for name, words in (("report.html", f"from <code>{version}"), ("card.md", "Recalibrated")):
        assert words in (version_folder(tmp_path, new) / name).read_text("utf-8")
    # The card of a version with a changed policy also describes the recalibration.
    done = run("models", "policy", new, "--aim", "capacity=0.2")
    assert done.returncode == 0, done.stderr
    card = (version_folder(tmp_path, done.stdout.strip()) / "card.md").read_text("utf-8")
    assert "## Recalibrated on\nlater.csv: 1,200 loans" in card
    assert "the riskiest 20 %" in card


def test_recalibrate_uses_the_aim(
    run: Run, tmp_path: Path, version_of: VersionOf, later: Path
) -> None:
    done = run(
        *("train", later, "--recalibrate", version_of("additive"), "--aim", "capacity=0.25"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (output,) = json.loads(done.stdout)["candidates"]
    policy = manifest(version_folder(tmp_path, output["version"]))["policy"]
    assert (policy["aim"], policy["aim_value"]) == ("capacity", 0.25)
    assert output["metrics"]["flagged"] <= 0.25


# models policy


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_a_policy_change_publishes_a_version_that_differs_in_nothing_else(
    run: Run, tmp_path: Path, store: Store, version_of: VersionOf, candidate: str
) -> None:
    version = version_of(candidate)
    before = contents(version_folder(tmp_path, version))
    done = run("models", "policy", version, "--aim", "recall=0.6")
    assert done.returncode == 0, done.stderr
    new = done.stdout.strip()
    assert new in store.versions()
    assert f"{new}: loans are flagged from a probability of " in done.stderr
    assert contents(version_folder(tmp_path, version)) == before
    after = contents(version_folder(tmp_path, new))
    differ = {name for name in before if after[name] != before[name]}
    assert differ == {"card.md", "manifest.json", "report.html"}
    assert set(after) == set(before)
    notice = after["report.html"].decode().split("<main>")[0]
    assert (
        f"was changed after this report was written for {version}. A loan is flagged (Yes)"
        in notice
    )
    assert "at least 60 % of the late loans" in after["card.md"].decode()

    old, changed = (
        manifest(version_folder(tmp_path, version)),
        manifest(version_folder(tmp_path, new)),
    )
    differ = {name for name in {*old, *changed} if old.get(name) != changed.get(name)}
    assert differ == {"version", "created", "policy", "metrics", "intervals", "golden", "files"} - (
        {"created"} if old["created"] == changed["created"] else set()
    )
    assert (changed["policy"]["aim"], changed["policy"]["aim_value"]) == ("recall", 0.6)
    was, found = old["metrics"], changed["metrics"]
    assert {name for name in was if was[name] != found[name]} == {"recall", "flagged"}
    row = next(row for row in old["trade_off"] if row["recall"] >= 0.6)
    assert (found["recall"], found["flagged"]) == (row["recall"], row["flagged"])
    assert f"{row['recall']:.4g}" in after["card.md"].decode()
    for one, other in zip(old["golden"], changed["golden"], strict=True):
        assert (one["loan"], one["margin"]) == (other["loan"], other["margin"])

    assert run("models", "promote", new).returncode == 0
    assert store.state().champion == new
    assert store.load(new).policy.aim == "recall"


def test_an_aim_that_a_version_can_not_reach_is_one_error_line(
    run: Run, store: Store, version_of: VersionOf
) -> None:
    versions = store.versions()
    done = run("models", "policy", version_of("additive"), "--aim", "capacity=0.0001")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "no threshold of this version flags as few as" in done.stderr
    assert store.versions() == versions


# models compare


@pytest.mark.longer
def test_compare_prints_both_versions_and_json(
    run: Run, version_of: VersionOf, later: Path, sample_book: Path
) -> None:
    first, second = version_of("additive"), version_of("basic")
    done = run("models", "compare", first, second, later)
    assert done.returncode == 0, done.stderr
    assert "trained on this book" not in done.stderr
    for words in (first, second, "1,200 loans", "AUC", "calibration slope", "95 % interval"):
        assert words in done.stdout, words

    done = run("models", "compare", first, second, sample_book, "--json")
    assert done.returncode == 0, done.stderr
    for version in (first, second):
        assert f"note: {version} was trained on this book" in done.stderr
    output = json.loads(done.stdout)
    assert output["loans"] == 6000
    assert (output["a"]["version"], output["b"]["version"]) == (first, second)
    low, high = output["auc_difference"]["interval"]
    assert low <= output["auc_difference"]["value"] <= high
    assert sum(each["loans"] for each in output["decisions"]) == 6000
    assert sum(sum(row.values()) for row in output["bands"].values()) == 6000


@pytest.mark.longer
def test_compare_without_a_book_or_outcomes_is_refused(
    run: Run, tmp_path: Path, version_of: VersionOf, later: Path
) -> None:
    first, second = version_of("additive"), version_of("basic")
    assert run("models", "compare", first, second).returncode == 2
    lines = later.read_text().splitlines()
    place = lines[0].split(",").index("is_late")
    cut = [",".join(c for i, c in enumerate(line.split(",")) if i != place) for line in lines]
    (tmp_path / "unknown.csv").write_text("\n".join(cut) + "\n")
    done = run("models", "compare", first, second, "unknown.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown.csv: expected the column is_late" in done.stderr
