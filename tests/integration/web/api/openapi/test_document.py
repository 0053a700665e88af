"""The API's description, as a generated client and a property-based tester take it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

from helpers.another_lender import LABEL, table
from helpers.apps import create_app
from helpers.commands import Run
from helpers.csv_files import write_csv
from helpers.service import Serve, Service
from helpers.sizes import API_EXAMPLES
from helpers.stores import VersionOf
from peerloan.loan import read_definition
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens

HERE = Path(__file__).parent / "schemathesis"
BIN = Path(sys.executable).parent


@pytest.fixture
def token(run: Run) -> str:
    """An operator's token."""
    return run("token", "new", "developer", "--operator").stdout.strip()


@pytest.fixture
def service(store: Store, version_of: VersionOf, serve: Serve, token: str) -> Service:
    """A service that asks for tokens, with a champion and a version beside it."""
    store.promote(version_of("additive"))
    return serve(store)


def document(service: Service, token: str) -> Any:
    head = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{service.url}/openapi.json", headers=head, timeout=10).json()


def operations(described: Any) -> Iterator[tuple[str, str, Any]]:
    """Method, address and answers of each operation that asks for a token."""
    filled = {"version": "none", "model": "late-payments"}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            if operation.get("security") != []:
                address = re.sub(
                    r"\{(\w+)\}", lambda found: filled.get(found[1], str(uuid.uuid4())), path
                )
                yield method.upper(), address, operation["responses"]


def stated(answer: Any, responses: Any, described: Any) -> None:
    """An answer is one of those that the description has."""
    assert str(answer.status_code) in responses, answer.request.path
    content = responses[str(answer.status_code)]["content"]
    schema = content[answer.content_type]["schema"] | {"components": described["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json)


def test_what_any_operation_may_answer_is_stated(
    store: Store, version_of: VersionOf, tmp_path: Path
) -> None:
    """Who calls without a token, from a page of another site, or while tokens can't be read."""
    store.promote(version_of("additive"))
    folder = tmp_path / "tokens"
    head = {"Authorization": f"Bearer {Tokens(folder).new('developer')}"}
    narrow = {"Authorization": f"Bearer {Tokens(folder).new('narrow', scopes=['metrics'])}"}
    client = create_app(Settings(store.root, tokens=folder)).test_client()
    described = client.get("/openapi.json", headers=head).json
    assert described is not None
    (folder / "tokens.json").write_text("{")
    unread = create_app(Settings(store.root, tokens=folder)).test_client()
    paths = set()
    for method, path, responses in operations(described):
        paths.add(path)
        answers = [(client.open(path, method=method), 401), (unread.open(path, method=method), 503)]
        if method == "POST":
            other = {"Origin": "https://evil.example"}
            answers.append((client.open(path, method=method, headers=other), 403))
        if path not in ("/metrics", "/openapi.json"):
            answers.append((client.open(path, method=method, headers=narrow), 403))
        for answer, status in answers:
            assert answer.status_code == status, (path, answer.text)
            stated(answer, responses, described)
    assert {"/v2", "/v1/predictions", "/openapi.json", "/metrics"} <= paths


def try_all(service: Service, token: str, folder: Path, *only: str) -> None:
    """Run every check of the tester, on all of the API or on some of its paths."""
    done = subprocess.run(
        [
            *(BIN / "schemathesis", "--config-file", HERE / "schemathesis.toml", "run"),
            *(f"{service.url}/openapi.json", "--max-examples", str(API_EXAMPLES)),
            *("--header", f"Authorization: Bearer {token}", "--seed", "1", "--no-color"),
            "--continue-on-failure",
            *(word for path in only for word in ("--include-path", path)),
        ],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "exceptions", "PYTHONPATH": str(HERE)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    failures = [line[:2000] for line in done.stdout.splitlines()]
    assert done.returncode == 0, "\n".join(failures[-150:])
    assert re.search(r"(\d\d\d+) generated, \1 passed", done.stdout), done.stdout
    assert "exceptions" not in done.stderr
    assert '"status":500' not in service.log.read_text()


@pytest.mark.longer
def test_a_property_based_tester_finds_nothing(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    token: str,
    tmp_path: Path,
) -> None:
    # It promotes what is listed, and would go on with another champion than the described one.
    shutil.rmtree(store.folder(version_of("basic")))
    champion = version_of("additive")
    store.promote(champion)
    service = serve(store)
    try_all(service, token, tmp_path)
    asked = f'"method":"GET","path":"/v1/models/{champion}","status":200'
    assert asked in service.log.read_text()
    assert store.state().number == 1


@pytest.mark.longer
def test_nor_does_it_with_another_lender_s_loans(
    run: Run, serve: Serve, token: str, tmp_path: Path
) -> None:
    rows = [row | {"Konto-Nr.": f"K{i}", "Datum": "2026-01-31"} for i, row in enumerate(table())]
    write_csv(tmp_path / "kredite.csv", rows)
    drafted = run("define", "kredite.csv", "--label", LABEL, "--late", "bad", "-o", "loan.toml")
    assert drafted.returncode == 0, drafted.stderr
    roles = read_definition(tmp_path / "loan.toml").roles
    assert (roles.id, roles.date) == ("Konto-Nr.", "Datum")
    train = ("train", "kredite.csv", "--definition", "loan.toml", "--promote", "--quick")
    trained = run(*train, "--candidate", "additive")
    assert trained.returncode == 0, trained.stderr
    service = serve(Store(tmp_path / "store"))
    described = document(service, token)["components"]["schemas"]["Loan"]["properties"]
    assert {"Konto-Nr.", "Datum", "loan_id", "Größe_m²"} <= set(described)
    # Where a loan or its label stands; all else is as above.
    try_all(service, token, tmp_path, "/v1/predictions", "/v1/outcomes")


CLIENT = """
import json, sys
from made import AuthenticatedClient
from made.api.models import model, models, promote
from made.api.monitoring import acknowledge, drift, events
from made.api.outcomes import outcomes
from made.api.predictions import predict
from made.models import AcknowledgeBody, PredictWhatIf, Problem, PromoteBody
from made.models import Columns, Loan, Outcome, Outcomes

url, token, loan, other = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
client = AuthenticatedClient(base_url=url, token=token)
one = predict.sync(client=client, body=Loan.from_dict(loan))
print(one.probability, one.late, one.band.value, len(one.reasons), one.id)
many = predict.sync(client=client, body=[Loan.from_dict(loan)] * 3)
columns = predict.sync(client=client, body=Columns.from_dict({n: [v] for n, v in loan.items()}))
what_if = predict.sync(client=client, body=Loan.from_dict(loan), what_if=PredictWhatIf.TRUE)
assert [p.probability for p in many.predictions] == [one.probability] * 3
assert [p.probability for p in columns.predictions] == [one.probability]
assert what_if.what_if is True
wrong = predict.sync(client=client, body=Loan.from_dict(loan | {"dti": -1}))
assert isinstance(wrong, Problem) and wrong.errors[0].field == "dti", wrong
told = Outcomes([Outcome(id=one.id, late=True), Outcome(loan_id="nobody", is_late=1)])
kept = outcomes.sync(client=client, body=told)
assert (kept.stored, kept.refused) == (1, 1), kept
assert kept.outcomes[0].id == one.id and kept.outcomes[1].errors[0].field == "date", kept
page = events.sync(client=client)
assert (page.events, page.next_) == ([], None), page
history = drift.sync(client=client)
assert (history.figures, history.alarms) == ([], []), history
unknown = acknowledge.sync(one.id, client=client, body=AcknowledgeBody(why="seen"))
assert isinstance(unknown, Problem) and unknown.status == 404, unknown
listed = models.sync(client=client)
assert other in [each.version for each in listed.versions]
assert model.sync(other, client=client).digest
change = promote.sync(other, client=client, body=PromoteBody(why="by a generated client"))
assert change.champion == other and change.who == "developer", change
"""


@pytest.mark.longer
def test_a_generated_client_works(
    service: Service,
    token: str,
    version_of: VersionOf,
    loan: dict[str, Any],
    tmp_path: Path,
) -> None:
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(document(service, token)))
    generate = f"generate --path {described} --output-path {tmp_path}/made --meta none"
    made = subprocess.run(
        [BIN / "openapi-python-client", *generate.split(), "--fail-on-warning"],
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, service.url, token, json.dumps(loan), version_of("basic")],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    probability, late, band, _, _ = done.stdout.replace("very high", "very-high").split()
    head = {"Authorization": f"Bearer {token}"}
    service.wait_for(lambda: service.serving() == version_of("basic"))
    assert 0 < float(probability) < 1
    assert late in ("True", "False")
    assert band in ("low", "medium", "high", "very-high")
    last = requests.get(f"{service.url}/v1/models", headers=head, timeout=10).json()["history"][-1]
    assert last["why"] == "by a generated client"
