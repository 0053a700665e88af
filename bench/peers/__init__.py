"""Other ways to serve a model, each with one worker and configured for speed on one core.

All serve the same pipeline (pipeline.py) and get the same loan, each in the format that it expects.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peers.environments import HERE, install
from side import Failed, Side, free_port, last_line

Loan = Mapping[str, object]


@dataclass(frozen=True)
class Model:
    """The trained pipeline, a loan, and the pipeline's probability for it."""

    pipeline: Path
    loan: Loan
    probability: float


@dataclass(frozen=True)
class Peer:
    """How to start a peer, what to send to it, and where its answer has the probability.

    In texts `{port}` is replaced by the port to listen on, `{free}` by another free port,
    `{pipeline}` by the pipeline's file, and `{folder}` by an empty folder.
    """

    title: str
    command: str
    path: str
    ready: str
    body: Callable[[Loan], object]
    probability: Callable[[Any], float]
    settings: dict[str, str] = field(default_factory=dict)
    prepare: str = ""


def _columns(loan: Loan) -> object:
    """Return one loan as a table in the Open Inference Protocol, as in MLServer's docs."""
    types = {str: "BYTES", int: "INT64", float: "FP64"}
    inputs = [
        {"name": name, "shape": [1], "datatype": types[type(value)], "data": [value]}
        | ({"parameters": {"content_type": "str"}} if isinstance(value, str) else {})
        for name, value in loan.items()
    ]
    outputs = [{"name": "predict_proba"}]
    return {"parameters": {"content_type": "pd"}, "inputs": inputs, "outputs": outputs}


# Request logs are switched off where possible. Our service writes one.
PEERS = {
    "flask": Peer(
        title="Flask + pandas, Gunicorn (client's)",
        command="gunicorn -k gthread --threads 4 -b 127.0.0.1:{port} flask_app:app",
        path="/predict",
        ready="/readyz",
        body=lambda loan: loan,
        probability=lambda answer: answer["probability"],
    ),
    "fastapi": Peer(
        title="FastAPI + pandas, Uvicorn",
        command="uvicorn --port {port} --no-access-log fastapi_app:app",
        path="/predict",
        ready="/readyz",
        body=lambda loan: loan,
        probability=lambda answer: answer["probability"],
    ),
    "mlserver": Peer(
        title="MLServer",
        command="mlserver start {folder}",
        path="/v2/models/loans/infer",
        ready="/v2/models/loans/ready",
        body=_columns,
        probability=lambda answer: answer["outputs"][0]["data"][1],
        settings={
            "MLSERVER_HOST": "127.0.0.1",
            "MLSERVER_HTTP_PORT": "{port}",
            "MLSERVER_GRPC_PORT": "{free}",
            "MLSERVER_METRICS_PORT": "{free}",
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "0",  # in the server's process, which is faster
            "MLSERVER_MODEL_NAME": "loans",
            "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_sklearn.SKLearnModel",
            "MLSERVER_MODEL_URI": "{pipeline}",
        },
    ),
    "bentoml": Peer(
        title="BentoML",
        command="bentoml serve bentoml_app:Loans --host 127.0.0.1 --port {port}",
        path="/predict",
        ready="/readyz",
        body=lambda loan: {"loans": [loan]},
        probability=lambda answer: answer[0],
        settings={"BENTOML_HOME": "{folder}", "BENTOML_DO_NOT_TRACK": "True"},
    ),
    "mlflow": Peer(
        title="MLflow models serve",
        command="mlflow models serve -m {folder}/model --env-manager local --workers 1 "
        "--host 127.0.0.1 --port {port}",
        path="/invocations",
        ready="/health",
        body=lambda loan: {"dataframe_split": {"columns": [*loan], "data": [[*loan.values()]]}},
        probability=lambda answer: answer["predictions"][0][1],
        settings={"MLFLOW_DISABLE_TELEMETRY": "true", "UVICORN_ACCESS_LOG": "false"},
        prepare="python {scripts}/mlflow_model.py {pipeline} {folder}/model",
    ),
}


def train(book: Path, loan: Loan, out: Path) -> Model:
    """Train the pipeline once for all peers, whose locks have the same library versions."""
    script = [sys.executable, str(HERE / "pipeline.py"), str(book), json.dumps(loan), str(out)]
    said = subprocess.run(script, check=True, stdout=subprocess.PIPE, text=True).stdout
    return Model(out, loan, float(said))


def side(name: str, model: Model) -> Side:
    """Install a peer, and return it as a side to measure. Raises Failed."""
    peer, programs = PEERS[name], install(name)
    folder = model.pipeline.with_name(f"peer-{name}")
    folder.mkdir()
    known = {
        "{folder}": str(folder),
        "{pipeline}": str(model.pipeline),
        "{scripts}": str(HERE),
    }

    def filled(text: str) -> str:
        for mark, value in known.items():
            text = text.replace(mark, value)
        return text.replace("{free}", str(free_port()))

    settings = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(HERE),
        "OMP_NUM_THREADS": "1",
        "PIPELINE": str(model.pipeline),
    } | {key: filled(text) for key, text in peer.settings.items()}
    if peer.prepare:
        command = filled(peer.prepare).split()
        done = subprocess.run(command, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise Failed(f"did not start: {last_line(done.stderr.splitlines())}")
    return Side(
        name=peer.title,
        command=filled(peer.command).split(),
        settings=settings,
        body=peer.body(model.loan),
        right=lambda answer: abs(peer.probability(answer) - model.probability) < 1e-6,
        path=peer.path,
        ready=peer.ready,
    )
