"""The Open Inference Protocol through its stock clients, which have an environment of their own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.api import Api, columns, loans, started
from helpers.paths import ROOT
from peerloan import __version__
from peerloan.web.auth.tokens import Tokens

PYTHON = ROOT / ".venv-clients/bin/python"
OUTPUTS = ("probability", "late", "band", "reasons")
pytestmark = [
    pytest.mark.longer,
    pytest.mark.skipif(
        not PYTHON.exists(), reason="the stock clients are not installed; `make test-all` does it"
    ),
]


@pytest.fixture(scope="module", params=["open", "asks for tokens"])
def api(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Api]:
    """A service with a champion and a challenger, and the head that goes along with requests."""
    folder = tmp_path_factory.mktemp("clients")
    head = {}
    if request.param != "open":
        token = Tokens(folder / "tokens").new("clients", operator=False)
        head = {"Authorization": f"Bearer {token}"}
    for api in started(trained, folder, "additive", "basic"):
        assert api.get("/v2").status_code == (401 if head else 200)
        api.session.headers.update(head)
        yield api


@pytest.fixture(scope="module")
def given(api: Api) -> dict[str, Any]:
    """What a script is asked to send."""
    records = loans(25, seed=5)
    fields = api.bundle.definition.fields
    return {
        "model": "late-payments",
        "version": api.version,
        "headers": {k: v for k, v in api.session.headers.items() if k == "Authorization"},
        "outputs": [*OUTPUTS, "id"],
        "columns": columns(records),
        "number": "loan_amnt",
        "may_miss": next(f.name for f in fields if f.missing and not f.is_number),
    }


@pytest.fixture(scope="module")
def expected(api: Api, given: dict[str, Any]) -> dict[str, list[Any]]:
    """What the REST API answers for the same loans."""
    predictions = api.many(given["columns"])
    return {name: [each[name] for each in predictions] for name in OUTPUTS}


def ask(client: str, api: Api, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a client made of the answers: decisions by way of asking, and facts."""
    done = subprocess.run(
        [PYTHON, ROOT / f"tests/clients/with_{client}.py", api.url],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    made = json.loads(done.stdout)
    return made["answers"], made["facts"]


def same(answers: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    """Every way of asking brought the REST API's decisions, each with an id of its own."""
    ids = []
    for way, found in answers.items():
        for name in OUTPUTS:
            assert found[name] == expected[name], (way, name)
        ids += found["id"]
    assert len(set(ids)) == len(ids)


def test_tritonclient(api: Api, given: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    answers, facts = ask("tritonclient", api, given)
    two = answers.pop("two outputs")
    assert two == {name: expected[name] for name in ("late", "probability")}
    same(answers, expected)
    assert len(answers) == 11

    assert [facts[f"{what} ready"] for what in ("model", "version", "other")] == [True, True, False]
    assert facts["live"] is facts["ready"] is True
    assert facts["server"] == {
        "name": "peerloan",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    assert facts["metadata"] == facts["version's metadata"]
    head = {"model_name": "late-payments", "model_version": api.version, "id": "mine"}
    assert facts["head"] == head
    assert facts["wrong value"][0] == "400"
    assert facts["wrong value"][1].startswith("loan 0, loan_amnt: expected a number (US dollars)")
    assert facts["wrong model"] == ["404", "expected the model late-payments, given 'other'"]
    assert facts["wrong version"][0] == "404"
    assert api.version in facts["wrong version"][1]
    assert facts["wrong output"][0] == "400"
    assert facts["lacking"][0] == "400"
    assert "loan_amnt: expected a number" in facts["lacking"][1]
    assert facts["lacking"][1].endswith("given nothing")


def test_mlserver(api: Api, given: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    answers, facts = ask("mlserver", api, given)
    same(answers, expected)
    assert len(answers) == 10

    assert facts["server"]["name"] == "peerloan"
    assert facts["inputs"] == list(api.bundle.definition.names)
    assert facts["versions"] == [api.version, api.store.state().challenger]
    assert facts["response"] == ["late-payments", api.version]
    assert facts["content type"] == "pd"
    assert facts["error"] == "expected the model late-payments, given 'other'"
    assert facts["gap's datatypes"][-1] == "FP64"
    first = {name: values[0] for name, values in given["columns"].items()}
    one = api.one(first | {given["may_miss"]: None})
    assert {name: facts["gap"][name] for name in OUTPUTS} == {name: [one[name]] for name in OUTPUTS}


def test_kserve(api: Api, given: dict[str, Any], expected: dict[str, list[Any]]) -> None:
    answers, facts = ask("kserve", api, given)
    same(answers, expected)
    assert len(answers) == 6

    assert facts["live"] is facts["ready"] is facts["model ready"] is True
    assert facts["other ready"] is False
    assert facts["response"] == ["late-payments", "mine"]
    assert "loan_amnt: expected a number" in facts["error"]
    assert "400 Bad Request" in facts["error"]
