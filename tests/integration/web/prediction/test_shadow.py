"""The challenger in shadow: its scores are in the metrics and the ledger, never in a response."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import requests
from sqlalchemy import func, select

from helpers.apps import create_app
from helpers.paths import FORMATS
from helpers.probes import COUNT, challenger_decisions, figures, predict, ready
from helpers.service import GUNICORN, SERVE, Serve, Service, settings
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.database.tables import challenges
from peerloan.loan import Checks
from peerloan.registry import Bundle, Store
from peerloan.settings import Settings
from peerloan.web.http.problems import RequestError
from peerloan.web.prediction import loan_parsing
from peerloan.web.prediction import shadow as shadow_module
from peerloan.web.prediction.shadow import Shadow
from peerloan.web.services import install, services_of
from peerloan.web.telemetry import metrics


@pytest.fixture
def service(store: Store, version_of: VersionOf, serve: Serve) -> Service:
    """A service with a scorecard as champion and a forest as challenger."""
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    service = serve(store)
    service.wait_for(lambda: "in shadow: " in service.log.read_text("utf-8"))
    return service


def test_each_decision_is_scored_by_the_challenger(
    service: Service, store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    one = predict(service, loan).json()
    assert one["model"]["version"] == version_of("additive")
    assert version_of("basic") not in json.dumps(one)
    assert predict(service, [loan] * 5).ok
    assert predict(service, {name: [value] * 4 for name, value in loan.items()}).ok
    assert predict(service, loan, "?what_if=true").ok
    assert predict(service, loan | {"dti": "x"}).status_code == 422
    service.wait_for(lambda: challenger_decisions(service) >= 10)
    found = figures(service, COUNT)
    assert sum(found.values()) == 10, "refused requests and a what_if don't count"
    assert set(found) <= {("same",), ("changed",), ("failed",)}
    assert found.get(("failed",), 0) == 0
    assert figures(service, "peerloan_challenger_difference_count")[()] == 10

    challenger = store.load(version_of("basic"))
    champion = store.load(version_of("additive"))
    values = [float(v) if isinstance(v, int) else v for v in loan.values()]
    order = [values[list(loan).index(name)] for name in champion.definition.names]
    difference = (
        challenger.decide(order, explain=False).probability
        - champion.decide(order, explain=False).probability
    )
    total = figures(service, "peerloan_challenger_difference_sum")[()]
    assert total == pytest.approx(10 * difference)
    same = challenger.decide(order, explain=False).late == champion.decide(order).late
    assert found[("same" if same else "changed",)] == 10


def test_a_decision_on_the_page_is_scored_by_the_challenger(
    service: Service, loan: dict[str, Any]
) -> None:
    form = {f"field.{name}": str(value) for name, value in loan.items()}
    assert requests.post(service.url, data=form, timeout=10).ok
    service.wait_for(lambda: challenger_decisions(service) == 1)


def test_loans_that_the_challenger_cannot_score_count_as_failed_and_are_no_error(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    # A version with another definition, which needs fields that no request has.
    folder = next(p for p in (FORMATS / "format-1-scorecard").iterdir() if p.is_dir())
    shutil.copytree(folder, store.root / "versions" / folder.name)
    state = json.loads((store.root / "aliases/000001.json").read_text("utf-8"))
    digests = state["digests"] | {folder.name: store.load(folder.name).digest}
    second = state | {"number": 2, "challenger": folder.name, "digests": digests}
    (store.root / "aliases/000002.json").write_text(json.dumps(second), "utf-8")
    service = serve(store)
    service.wait_for(lambda: "in shadow: " in service.log.read_text("utf-8"))

    assert predict(service, loan).ok
    assert predict(service, [loan] * 3).ok
    service.wait_for(lambda: figures(service, COUNT).get(("failed",)) == 4)
    assert figures(service, "peerloan_challenger_difference_count").get((), 0) == 0


def test_a_refused_challenger_does_not_affect_serving_and_is_tried_again(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    file = store.folder(version_of("basic")) / "model.onnx"
    whole = file.read_bytes()
    file.write_bytes(b"nonsense")
    service = serve(store)
    service.wait_for(lambda: "challenger_refused" in ready(service))
    assert "model.onnx" in ready(service)["challenger_refused"]
    assert ready(service)["status"] == "ready"
    assert "refused" not in ready(service), "the champion is not"
    assert figures(service, "peerloan_refused_bundles_total") == {
        ("champion",): 0,
        ("challenger",): 1,
    }
    assert predict(service, loan).ok
    assert challenger_decisions(service) == 0

    file.write_bytes(whole)
    service.wait_for(lambda: "challenger_refused" not in ready(service), seconds=8)
    assert predict(service, loan).ok
    service.wait_for(lambda: challenger_decisions(service) == 1)


def served(service: Service) -> list[str]:
    """The loaded versions: the champion, and the challenger if there is one."""
    metadata = requests.get(f"{service.url}/v2/models/late-payments", timeout=10).json()
    versions: list[str] = metadata["versions"]
    return versions


def test_a_removed_challenger_is_unloaded_even_if_the_new_champion_is_refused(
    service: Service, store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    assert served(service) == [version_of("additive"), version_of("basic")]
    state = json.loads((store.root / "aliases/000002.json").read_text("utf-8"))
    third = state | {"number": 3, "champion": "never-published", "challenger": None}
    (store.root / "aliases/000003.json").write_text(json.dumps(third), "utf-8")
    service.wait_for(lambda: "never-published" in ready(service).get("refused", ""))
    service.wait_for(lambda: served(service) == [version_of("additive")], seconds=2)
    assert predict(service, loan).ok
    assert challenger_decisions(service) == 0


def test_a_promotion_does_not_reload_the_challenger(
    service: Service, store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    first = version_of("additive")
    third = store.publish_with_policy(first, store.load(first).policy.by_cost(10))
    (store.folder(version_of("basic")) / "model.onnx").unlink()
    store.promote(third)
    service.wait_for(lambda: service.serving() == third)
    assert served(service) == [third, version_of("basic")]
    assert predict(service, loan).ok
    service.wait_for(lambda: challenger_decisions(service) == 1)
    assert service.log.read_text("utf-8").count("in shadow: ") == 1


@pytest.mark.parametrize("server", [SERVE, GUNICORN], ids=["serve", "gunicorn"])
def test_scores_of_the_last_decisions_are_stored_when_the_process_ends(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any], server: str
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    service = serve(store, server=server)
    service.wait_for(lambda: "in shadow: " in service.log.read_text("utf-8"))
    for _ in range(6):
        assert predict(service, loan).ok
    service.process.terminate()
    assert service.process.wait(timeout=10) == 0

    assert stored_scores(store) == 6
    # The margin is the model's, not computed from the rounded probability.
    challenger = store.load(version_of("basic"))
    values = Checks(challenger.definition).loan(loan).values
    margin = challenger.decide(values, explain=False).margin
    with ledger_of(store).reading() as connection:
        assert set(connection.scalars(select(challenges.c.margin))) == {margin}


def ledger_of(store: Store) -> Database:
    """The ledger beside a store."""
    return Database(f"sqlite:///{store.root.parent / 'peerloan-ledger' / 'ledger.db'}")


def stored_scores(store: Store) -> int:
    """Return how many scores of a challenger the ledger beside the store has."""
    with ledger_of(store).reading() as connection:
        return connection.scalar(select(func.count()).select_from(challenges)) or 0


# The champion decides on one loan by `decide`, so only the challenger is slow here.
SLOW_CHALLENGER = """
import atexit, json, os, time
from dataclasses import replace
from peerloan.registry import Bundle
from peerloan.settings import read_settings
from peerloan.web import create_app
from peerloan.web.prediction.shadow import Shadow
from peerloan.web.services import install, services_of
from peerloan.web.telemetry import metrics

def decide_slowly(*arguments, decide_many=Bundle.decide_many, **options):
    time.sleep(1)
    return decide_many(*arguments, **options)

Bundle.decide_many = decide_slowly
atexit.register(lambda: print(metrics.exposition().decode()))
app = create_app(read_settings(), on_loopback=True)
shared = services_of(app)
shadow = Shadow(shared.serving_models, shared.database, shared.writer, end_seconds=0)
install(app, replace(shared, shadow=shadow))
client = app.test_client()
for _ in range(5):
    assert client.post("/v1/predictions", json=json.loads(os.environ["LOAN"])).status_code == 200
"""


def test_decisions_are_counted_as_skipped_if_the_process_ends_before_they_are_scored(
    store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    done = subprocess.run(
        [sys.executable, "-c", SLOW_CHALLENGER],
        env=os.environ | settings(store.root) | {"LOAN": json.dumps(loan)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = dict(re.findall(rf'^{COUNT}{{outcome="(\w+)"}} (\S+)$', done.stdout, re.M))
    skipped = float(found.pop("skipped"))
    assert 0 < skipped < 5
    assert sum(map(float, found.values())) == stored_scores(store) == 5 - skipped


def count_of(outcome: str) -> int:
    """Return how many decisions of this process have an outcome in the metrics."""
    name = "peerloan_challenger_decisions_total"
    return int(metrics.REGISTRY.get_sample_value(name, {"outcome": outcome}) or 0)


def test_the_memory_of_waiting_requests_is_bounded(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    go_on, decide_many, challenger = threading.Event(), Bundle.decide_many, version_of("basic")

    def wait_as_challenger(bundle: Bundle, *arguments: Any, **options: Any) -> Any:
        if bundle.version == challenger:
            assert go_on.wait(60)
        return decide_many(bundle, *arguments, **options)

    body = [loan] * 20
    size = sum(len(json.dumps(each, separators=(",", ":"))) for each in body)
    limit = 10 * size
    monkeypatch.setattr(Bundle, "decide_many", wait_as_challenger)
    app = create_app(Settings(store.root), on_loopback=True)
    shared = services_of(app)
    shadow = Shadow(shared.serving_models, shared.database, shared.writer, max_bytes=limit)
    install(app, replace(shared, shadow=shadow))
    client, before = app.test_client(), count_of("skipped")

    for _ in range(14):
        assert client.post("/v1/predictions", json=body).status_code == 200
        assert shadow.waiting_bytes < limit + size
    skipped = count_of("skipped") - before
    assert skipped in (3 * 20, 4 * 20), "one request is being scored, and ten wait"
    go_on.set()
    until = time.monotonic() + 60
    while stored_scores(store) < 14 * 20 - skipped and time.monotonic() < until:
        time.sleep(0.1)
    assert stored_scores(store) == 14 * 20 - skipped
    assert shadow.waiting_bytes == 0


def challenged(store: Store, until: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """Wait for the challenger's probabilities in the ledger, and return them by decision id."""
    database = Database(f"sqlite:///{store.root.parent / 'peerloan-ledger' / 'ledger.db'}")
    end = time.monotonic() + 30
    found: dict[str, float] = {}
    while not until(found) and time.monotonic() < end:
        time.sleep(0.1)
        with database.reading() as connection:
            rows = connection.execute(select(challenges.c.decision_id, challenges.c.probability))
            found = {str(id_): probability for id_, probability in rows}
    return found


def test_a_challenger_with_the_same_fields_does_not_parse_the_loans_again(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    parsed: list[object] = []
    monkeypatch.setattr(shadow_module, "parse_stored_loan", lambda *loan: parsed.append(loan))
    monkeypatch.setattr(loan_parsing, "decode", lambda body: parsed.append(body))
    app = create_app(Settings(store.root), on_loopback=True)
    client = app.test_client()
    several = [loan | {"dti": dti} for dti in (1.5, 20, 30)]
    # A level that training has not seen, in a spelling that the check changes.
    several.append(loan | {"purpose": "True"})
    tensors = [
        {
            "name": name,
            "shape": [4],
            "datatype": "BYTES" if isinstance(loan[name], str) else "FP64",
            "data": [each[name] for each in several],
        }
        for name in loan
    ]
    form = {f"field.{name}": str(value) for name, value in loan.items()}
    assert client.post("/v1/predictions", json=loan).status_code == 200
    assert client.post("/v1/predictions", json=several).status_code == 200
    assert client.post("/", data=form).status_code == 200
    current = services_of(app).serving_models.current
    assert current is not None
    model = current.bundle.definition.model
    answer = client.post(f"/v2/models/{model}/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    found = challenged(store, lambda found: len(found) == 10)
    bundle = store.load(version_of("basic"))
    checks = Checks(bundle.definition)
    due = [
        bundle.decide(checks.loan(each).values, explain=False).probability
        for each in (loan, loan, *several, *several)
    ]
    assert sorted(found.values()) == sorted(due)
    assert parsed == []


def challenge_with_other_range(store: Store, version: str) -> None:
    """Make a version the challenger, after changing the range of one of its fields.

    Such a challenger parses the stored loans instead of the champion's parsed ones.
    """
    folder = store.folder(version)
    definition = json.loads((folder / "loan.json").read_bytes())
    (income,) = (each for each in definition["field"] if each["name"] == "annual_inc")
    income["max"] = 1_000_000
    content = json.dumps(definition).encode()
    (folder / "loan.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest["files"]["loan.json"] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    store.challenge(version)


def test_a_challenger_with_other_ranges_parses_the_stored_loans(
    store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    challenge_with_other_range(store, version_of("basic"))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    incomes = [30_000, 2_000_000, 90_000.5]
    columns = {name: [value] * 3 for name, value in loan.items()} | {"annual_inc": incomes}
    answer = client.post("/v1/predictions", json=columns).json
    assert answer is not None
    ids = [each["id"] for each in answer["predictions"]]
    bundle = store.load(version_of("basic"))
    checks = Checks(bundle.definition)
    assert challenged(store, lambda found: len(found) >= 2) == {
        ids[i]: bundle.decide(checks.loan(loan | {"annual_inc": incomes[i]}).values).probability
        for i in (0, 2)
    }


def test_without_a_challenger_nothing_is_counted(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    service = serve(store)
    assert predict(service, loan).ok
    assert challenger_decisions(service) == 0


def test_a_version_does_not_score_its_own_decisions(
    store: Store, version_of: VersionOf, loan: dict[str, Any]
) -> None:
    """For a moment, the same version may be champion and challenger, after a change of aliases."""
    store.promote(version_of("additive"))
    app = create_app(Settings(store.root), on_loopback=True)
    champion = services_of(app).serving_models
    client = app.test_client()
    for challenger in (champion.current, None):
        champion.challenger = challenger
        assert client.post("/v1/predictions", json=loan).status_code == 200
    champion.challenger = None
    time.sleep(1.5)  # longer than the interval between two writes
    assert stored_scores(store) == 0


def test_loans_that_the_challenger_cannot_parse_count_as_failed_and_are_no_error(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.promote(version_of("additive"))
    challenge_with_other_range(store, version_of("basic"))
    app = create_app(Settings(store.root), on_loopback=True)
    before = count_of("failed")

    def refuse(*_: object) -> None:
        raise RequestError(422, "Wrong Values", "months_on_book: expected a number")

    monkeypatch.setattr(shadow_module, "parse_stored_loan", refuse)
    columns = {name: [value] * 2 for name, value in loan.items()}
    assert app.test_client().post("/v1/predictions", json=columns).status_code == 200
    deadline = time.monotonic() + 10
    while count_of("failed") < before + 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count_of("failed") == before + 2
    # The applications of other tests may log errors of ledgers whose folders were removed.
    errors = [each for each in caplog.records if each.levelname == "ERROR"]
    assert not [each for each in errors if each.name.startswith("peerloan.web")]
