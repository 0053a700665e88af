"""ONNX runs that take too long are terminated and reported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from helpers.apps import create_app
from helpers.probes import eventually, readiness
from helpers.service import settings
from helpers.stores import VersionOf, challenge_unverified, update_manifest
from peerloan.model import onnx_run
from peerloan.registry import OnnxParts, Store, ValidationFigures, draft
from peerloan.settings import Settings
from peerloan.web.telemetry import metrics

FLOAT = onnx.TensorProto.FLOAT


def costly_graph(columns: int, products: int, width: int, of_loans: bool) -> bytes:
    """A graph of many matrix products: of weights only, or of one row per loan (`of_loans`)."""
    weights = {
        "first": np.ones((columns, 1)),
        "spread": np.ones((1, width)),
        "mean": np.full((width, 1), 1 / width),
        "square": np.full((width, width), 1 / width),
        "zero": np.zeros((1, 1)),
    }
    start, other = (("sum", "spread"), "square") if of_loans else (("mean", "spread"), None)
    nodes: list[tuple[str, tuple[str, ...], str]]
    nodes = [("MatMul", ("loans", "first"), "sum"), ("MatMul", start, "y0")]
    nodes += [("MatMul", (f"y{i}", other or f"y{i}"), f"y{i + 1}") for i in range(products)]
    if of_loans:
        nodes += [("MatMul", (f"y{products}", "mean"), "last")]
    else:
        nodes += [("MatMul", ("spread", f"y{products}"), "z"), ("MatMul", ("z", "mean"), "q")]
        nodes += [("Mul", ("sum", "q"), "last")]
    nodes += [("Mul", ("last", "zero"), "nothing"), ("Sigmoid", ("nothing",), "probabilities")]
    used = {name for _, inputs, _ in nodes for name in inputs}
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output]) for operator, inputs, output in nodes],
        "costly",
        [helper.make_tensor_value_info("loans", FLOAT, [None, columns])],
        [helper.make_tensor_value_info("probabilities", FLOAT, [None, 1])],
        [
            numpy_helper.from_array(values.astype(np.float32), name)
            for name, values in weights.items()
            if name in used
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def columns_of(store: Store, version: str) -> int:
    return len(store.onnx_parts(version).encoding.columns)


def make_endless(store: Store, version: str) -> str:
    """Replace a version's ONNX graph by one that needs hours per loan. Returns the version."""
    graph = costly_graph(columns_of(store, version), products=2_000, width=600, of_loans=False)
    folder = store.folder(version)
    (folder / "model.onnx").write_bytes(graph)
    update_manifest(folder)
    return version


def costly_version(store: Store, version: str) -> str:
    """Publish a version that is fast for a few loans and slow for many."""
    bundle = store.load(version)
    manifest = bundle.manifest
    graph = costly_graph(columns_of(store, version), products=200, width=600, of_loans=True)
    return store.publish(
        draft(
            candidate=manifest.candidate,
            definition=bundle.definition,
            estimator=OnnxParts(graph, store.onnx_parts(version).encoding),
            policy=bundle.policy,
            profile=bundle.profile,
            trained_on=manifest.trained_on,
            validation=ValidationFigures(
                manifest.metrics, manifest.intervals, manifest.candidates, manifest.trade_off
            ),
            libraries=manifest.libraries,
        )
    )


SHORT_LIMIT_CLI = """
import sys
from peerloan.model import onnx_run
onnx_run.RUN_SECONDS = 0.5
from peerloan.cli.main import main
main(sys.argv[1:])
"""


def test_verifying_an_endless_model_ends(store: Store, version_of: VersionOf) -> None:
    version = make_endless(store, version_of("basic"))
    done = subprocess.run(
        [sys.executable, "-c", SHORT_LIMIT_CLI, "models", "verify", version],
        env=os.environ | settings(store.root),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{version}: model.onnx: took longer than" in line
    assert "loans, and was terminated" in line


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time limit of a run in seconds, for any number of loans."""

    def set_limit(seconds: float) -> None:
        monkeypatch.setattr(onnx_run, "RUN_SECONDS", seconds)
        monkeypatch.setattr(onnx_run, "RUN_SECONDS_A_LOAN", 0.0)

    return set_limit


def metric(name: str, **labels: str) -> float:
    """The value of a metric in this process."""
    value = metrics.REGISTRY.get_sample_value(name, labels)
    assert value is not None, name
    return value


def runs_given_up(of: str) -> float:
    return metric("peerloan_model_runs_given_up_total", of=of)


def failed_challenges() -> float:
    metrics.CHALLENGED.labels("failed")  # starts at 0
    return metric("peerloan_challenger_decisions_total", outcome="failed")


def test_an_endless_challenger_is_refused_and_the_champion_serves(
    store: Store, version_of: VersionOf, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(version_of("additive"))
    challenge_unverified(store, make_endless(store, version_of("basic")))
    limit(0.5)
    app = create_app(Settings(store.root), on_loopback=True)
    client = app.test_client()
    assert client.post("/v1/predictions", json=loan).status_code == 200
    eventually(lambda: "challenger_refused" in readiness(client))
    assert "took longer than 0.5 s" in readiness(client)["challenger_refused"]
    assert readiness(client)["status"] == "ready"


def test_a_request_that_takes_too_long_gets_503_and_the_next_one_is_answered(
    store: Store, version_of: VersionOf, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(costly_version(store, version_of("basic")))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    before = runs_given_up("request")
    limit(0.5)
    answer = client.post("/v1/predictions?reasons=none", json=[loan] * 5_000)
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["title"] == "Model Too Slow"
    assert "took longer than 0.5 s for 5,000 loans" in answer.json["detail"]
    assert answer.headers["Retry-After"] == "5"
    assert runs_given_up("request") == before + 1
    limit(60)
    assert client.post("/v1/predictions?reasons=none", json=loan).status_code == 200


def test_a_shadow_run_that_takes_too_long_is_dropped_and_counted(
    store: Store, version_of: VersionOf, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(version_of("additive"))
    store.challenge(costly_version(store, version_of("basic")))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    before, failed_before = runs_given_up("shadow"), failed_challenges()
    limit(0.5)
    answer = client.post("/v1/predictions?reasons=none", json=[loan] * 5_000)
    assert answer.status_code == 200
    eventually(lambda: runs_given_up("shadow") == before + 1)
    assert failed_challenges() == failed_before + 5_000


START_AND_END = """
import time
from peerloan.settings import read_settings
from peerloan.web import create_app
from peerloan.web.prediction import serving_models
serving_models.CHALLENGER_START_SECONDS = 0
create_app(read_settings(), on_loopback=True)
time.sleep(2)  # the process ends during a run
"""


def test_a_process_ends_cleanly_during_an_endless_run(store: Store, version_of: VersionOf) -> None:
    store.promote(version_of("additive"))
    challenge_unverified(store, make_endless(store, version_of("basic")))
    done = subprocess.run(
        [sys.executable, "-c", START_AND_END],
        env=os.environ | settings(store.root),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "terminate called" not in done.stderr
