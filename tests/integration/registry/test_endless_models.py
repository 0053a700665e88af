"""ONNX models that take for ever, or too long for a request: they are ended, and told of."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from helpers.aliases import challenge_behind_the_back
from helpers.apps import create_app
from helpers.probes import eventually, readiness
from helpers.service import settings
from peerloan.model import onnx_run
from peerloan.registry import OnnxParts, Store, ValidationFigures, draft
from peerloan.settings import Settings
from peerloan.web.telemetry import metrics

Versions = Callable[[str], str]
FLOAT = onnx.TensorProto.FLOAT


def resign(folder: Path) -> None:
    """Make a version's sizes and digests right again."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in manifest["files"]:
        content = (folder / name).read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["files"][name] = entry
    (folder / "manifest.json").write_text(json.dumps(manifest))


def costly(columns: int, products: int, width: int, of_loans: bool) -> bytes:
    """A graph of many products of matrices: of weights alone, or with a row for each loan."""
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


def take_for_ever(store: Store, version: str) -> str:
    """Let an ONNX version need hours for a loan; as if it had been published so."""
    graph = costly(columns_of(store, version), products=2_000, width=600, of_loans=False)
    folder = store.folder(version)
    (folder / "model.onnx").write_bytes(graph)
    resign(folder)
    return version


def costly_version(store: Store, version: str) -> str:
    """Publish a version that is quick for a few loans, and not for many."""
    like = store.load(version)
    made = like.manifest
    graph = costly(columns_of(store, version), products=200, width=600, of_loans=True)
    return store.publish(
        draft(
            candidate=made.candidate,
            definition=like.definition,
            estimator=OnnxParts(graph, store.onnx_parts(version).encoding),
            policy=like.policy,
            profile=like.profile,
            trained_on=made.trained_on,
            validation=ValidationFigures(
                made.metrics, made.intervals, made.candidates, made.trade_off
            ),
            libraries=made.libraries,
        )
    )


QUICKLY = """
import sys
from peerloan.model import onnx_run
onnx_run.RUN_SECONDS = 0.5
from peerloan.cli.main import main
main(sys.argv[1:])
"""


def test_verifying_a_model_that_takes_for_ever_ends(store: Store, version_of: Versions) -> None:
    version = take_for_ever(store, version_of("basic"))
    done = subprocess.run(
        [sys.executable, "-c", QUICKLY, "models", "verify", version],
        env=os.environ | settings(store.root),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{version}: model.onnx: took longer than" in line
    assert "loans, and was ended" in line


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long a run may take, in seconds, however many loans it is of."""

    def set_limit(seconds: float) -> None:
        monkeypatch.setattr(onnx_run, "RUN_SECONDS", seconds)
        monkeypatch.setattr(onnx_run, "RUN_SECONDS_A_LOAN", 0.0)

    return set_limit


def given_up() -> dict[str, float]:
    return {of: metrics.RUNS_GIVEN_UP.labels(of)._value.get() for of in ("request", "shadow")}


def test_a_challenger_that_takes_for_ever_is_refused_and_the_champion_serves(
    store: Store, version_of: Versions, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(version_of("additive"))
    challenge_behind_the_back(store, take_for_ever(store, version_of("basic")))
    limit(0.5)
    app = create_app(Settings(store.root), on_loopback=True)
    client = app.test_client()
    assert client.post("/v1/predictions", json=loan).status_code == 200
    eventually(lambda: "challenger_refused" in readiness(client))
    assert "took longer than 0.5 s" in readiness(client)["challenger_refused"]
    assert readiness(client)["status"] == "ready"


def test_a_request_that_takes_too_long_is_given_up_and_the_next_one_answered(
    store: Store, version_of: Versions, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(costly_version(store, version_of("basic")))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    before = given_up()["request"]
    limit(0.5)
    answer = client.post("/v1/predictions?reasons=none", json=[loan] * 5_000)
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["title"] == "Model Too Slow"
    assert "took longer than 0.5 s for 5,000 loans" in answer.json["detail"]
    assert answer.headers["Retry-After"] == "5"
    assert given_up()["request"] == before + 1
    limit(60)
    assert client.post("/v1/predictions?reasons=none", json=loan).status_code == 200


def test_what_takes_the_challenger_too_long_is_dropped_and_counted(
    store: Store, version_of: Versions, loan: dict[str, Any], limit: Callable[[float], None]
) -> None:
    store.promote(version_of("additive"))
    store.challenge(costly_version(store, version_of("basic")))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    failed = metrics.CHALLENGED.labels("failed")._value
    before, failed_before = given_up()["shadow"], failed.get()
    limit(0.5)
    answer = client.post("/v1/predictions?reasons=none", json=[loan] * 5_000)
    assert answer.status_code == 200
    eventually(lambda: given_up()["shadow"] == before + 1)
    assert failed.get() == failed_before + 5_000


ENDING = """
import time
from peerloan.settings import read_settings
from peerloan.web import create_app
from peerloan.web.prediction import serving_models
serving_models.CHALLENGER_START_SECONDS = 0
create_app(read_settings(), on_loopback=True)
time.sleep(2)  # in the midst of a run
"""


def test_a_process_ends_in_order_while_a_model_takes_for_ever(
    store: Store, version_of: Versions
) -> None:
    store.promote(version_of("additive"))
    challenge_behind_the_back(store, take_for_ever(store, version_of("basic")))
    done = subprocess.run(
        [sys.executable, "-c", ENDING],
        env=os.environ | settings(store.root),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "terminate called" not in done.stderr
