"""`peerloan monitor --book`, as a process."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import Run
from helpers.stores import VersionOf
from peerloan.registry import Store


@pytest.fixture
def promoted(store: Store, version_of: VersionOf) -> str:
    version = version_of("additive")
    store.promote(version)
    return version


def monitor(run: Run, *arguments: str) -> dict[str, Any]:
    done = run("monitor", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def alerts(report: dict[str, Any]) -> set[tuple[str, str, str]]:
    """Rule, level and subject of each alert."""
    return {(alert["rule"], alert["level"], alert["about"]) for alert in report["rules"]}


def write_sample(run: Run, name: str, scenario: str, loans: int = 20_000) -> None:
    done = run("sample", name, "--loans", str(loans), "--seed", "99", "--scenario", scenario)
    assert done.returncode == 0, done.stderr


@pytest.mark.longer
def test_a_calm_book_raises_no_alert_and_each_scenario_does(
    promoted: str, run: Run, tmp_path: Path
) -> None:
    for scenario in ("calm", "recession", "rate-shock", "new-channel"):
        write_sample(run, f"{scenario}.csv", scenario)
    calm = monitor(run, "--book", "calm.csv")
    assert calm["model"] == promoted
    assert calm["window"] == {"book": "calm.csv", "loans": 20_000, "rejected": 0}
    assert alerts(calm) == set()
    assert max(feature["psi"] for feature in calm["features"]) < 0.02
    assert calm["estimated"]["auc"]["low"] < calm["realised"]["auc"]["value"]
    # The version was trained on few loans, so its expected rate is slightly off.
    assert 0.8 < calm["calibration"]["ratio"]["value"] < 1.25
    assert sum(b["loans"] for b in calm["features"][0]["bins"]) == 20_000
    recession = monitor(run, "--book", "recession.csv")
    assert ("calibration", "act", "late rate") in alerts(recession)
    assert recession["calibration"]["ratio"]["value"] > 1.25
    assert ("feature-drift", "act", "int_rate") in alerts(monitor(run, "--book", "rate-shock.csv"))
    assert {rule for rule, _, _ in alerts(monitor(run, "--book", "new-channel.csv"))}
    assert not list(tmp_path.glob("*.rejects"))


def test_a_book_without_outcomes_has_only_estimates(
    promoted: str, run: Run, tmp_path: Path
) -> None:
    write_sample(run, "book.csv", "calm", 500)
    rows = list(csv.DictReader((tmp_path / "book.csv").open()))
    with (tmp_path / "open.csv").open("w", newline="") as file:
        columns = [name for name in rows[0] if name != "is_late"]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows[:-1])
        writer.writerow(rows[-1] | {"loan_amnt": "much", "purpose": "boat"})
    report = monitor(run, "--book", "open.csv", "--model", promoted)
    assert report["realised"] is None
    assert report["calibration"] is None
    assert report["window"]["rejected"] == 1
    assert report["estimated"]["late_rate"]["low"] < report["estimated"]["late_rate"]["value"]
    done = run("monitor", "--book", "open.csv")
    assert done.returncode == 0, done.stderr
    assert "499 loans by " + promoted in done.stdout
    assert "1 row could not be scored and is left out" in done.stdout
    assert "int_rate" in done.stdout
    assert "no alert: every figure is within its limits" in done.stdout


def test_a_book_that_can_not_be_monitored_is_an_error(
    promoted: str, run: Run, tmp_path: Path
) -> None:
    assert promoted
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    done = run("monitor", "--book", "other.csv")
    assert (done.returncode, "other.csv" in done.stderr) == (1, True)
    write_sample(run, "book.csv", "calm", 2)
    text = (tmp_path / "book.csv").read_text().splitlines()
    (tmp_path / "empty.csv").write_text(text[0] + "\n")
    done = run("monitor", "--book", "empty.csv")
    assert done.returncode == 1
    assert "empty.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_champion_the_version_has_to_be_named(store: Store, run: Run) -> None:
    assert store.state().champion is None
    done = run("monitor", "--book", "book.csv")
    assert (done.returncode, "no champion" in done.stderr) == (1, True)
