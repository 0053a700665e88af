"""The store's versions over HTTP."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.stores import VersionOf
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens
from peerloan.web.services import services_of


@pytest.fixture
def client(flask_version: None, store: Store, version_of: VersionOf) -> FlaskClient:
    store.promote(version_of("basic"), "a first one")
    store.promote(version_of("additive"), "better", breaking=True)
    store.challenge(version_of("basic"), "to compare")
    return create_app(Settings(store.root), on_loopback=True).test_client()


def valid(client: FlaskClient, path: str, status: int = 200, token: str = "", **more: Any) -> Any:
    """An answer that is as the API's own description says."""
    head = {"Authorization": f"Bearer {token}"} if token else {}
    method = "post" if path.endswith("/promote") else "get"
    answer = client.open(path, method=method.upper(), headers=head, **more)
    assert answer.status_code == status, answer.text
    document = client.get("/openapi.json", headers=head).json
    assert document is not None
    template = re.sub("^/v1/models/[^/]+", "/v1/models/{version}", path)
    responses = document["paths"][template][method]["responses"]
    (content,) = responses[str(status)]["content"].values()
    schema = {**content["schema"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(answer.json)
    return answer.json


def test_every_version_is_listed_with_its_aliases_and_the_history(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    found = valid(client, "/v1/models")
    assert found["champion"] == version_of("additive")
    assert found["challenger"] == version_of("basic")
    listed = {version["version"]: version for version in found["versions"]}
    assert list(listed) == store.versions()
    champion = listed[version_of("additive")]
    assert champion["aliases"] == ["champion"]
    assert champion["digest"] == store.load(version_of("additive")).digest
    assert 0.5 < champion["metrics"]["auc"] < 1
    assert [(past["action"], past["why"]) for past in found["history"]] == [
        ("promote", "a first one"),
        ("promote", "better"),
        ("challenge", "to compare"),
    ]
    assert all(past["who"] and past["when"] for past in found["history"])


def test_a_reason_that_was_added_later_stands_beside_the_change(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    store.dismiss()
    added = store.explain_change(4, "it was compared for a month", who="anna")
    history = valid(client, "/v1/models")["history"]
    assert [past.get("explanation") for past in history] == [
        *(None, None, None),
        {"why": added.why, "who": "anna", "when": added.when},
    ]
    assert history[3]["why"] == ""


def test_a_deletion_stands_in_the_history(
    client: FlaskClient,
    store: Store,
    version_of: VersionOf,
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    gone = version_of("additive")
    store.rollback()
    store.delete(gone)
    deletion = valid(client, "/v1/models")["history"][-1]
    assert (deletion["action"], deletion["deleted"]) == ("delete", gone)
    assert deletion["champion"] == store.state().champion
    listed = run("models", "list", "--json")
    assert json.loads(listed.stdout)["history"][-1]["action"] == "delete"
    assert gone in run("models", "list").stdout.splitlines()[-1]


def test_one_version_shows_what_the_list_says_and_its_manifest(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    basic = version_of("basic")
    found = valid(client, f"/v1/models/{basic}")
    (listed,) = [v for v in valid(client, "/v1/models")["versions"] if v["version"] == basic]
    assert found == listed | {"manifest": found["manifest"]}
    assert found["aliases"] == ["challenger"]
    assert found["manifest"]["version"] == basic
    assert found["manifest"]["policy"]["threshold"] > 0
    assert set(found["manifest"]["files"]) == set(store.manifest(version_of("basic")).files)


def test_the_example_of_a_version_is_the_champion(client: FlaskClient) -> None:
    document = client.get("/openapi.json").json
    assert document is not None
    (parameter,) = document["paths"]["/v1/models/{version}"]["get"]["parameters"]
    assert valid(client, f"/v1/models/{parameter['example']}")["aliases"] == ["champion"]


@pytest.mark.parametrize("name", ["nothing", "..", "a%2Fb", "x" * 300])
def test_an_unknown_version_is_a_problem_that_names_the_known(
    client: FlaskClient, version_of: VersionOf, name: str
) -> None:
    answer = client.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    assert answer.content_type == "application/problem+json"


def test_a_promotion_is_answered_as_described(
    store: Store, version_of: VersionOf, tmp_path: Path
) -> None:
    basic, additive = version_of("basic"), version_of("additive")
    store.promote(basic, "a first one")
    tokens = Tokens(tmp_path / "tokens")
    anna, app = tokens.new("anna", operator=True), tokens.new("loans-app", operator=False)
    client = create_app(Settings(store.root, tokens=tmp_path / "tokens")).test_client()

    path = f"/v1/models/{additive}/promote"
    assert valid(client, path, 403, app)["title"] == "Forbidden"
    why = {"why": "better", "breaking": True}
    assert valid(client, path, 200, anna, json=why)["champion"] == additive
    assert "already the champion" in valid(client, path, 409, anna)["detail"]


def test_a_damaged_version_is_listed_and_refused(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    basic = version_of("basic")
    (store.folder(basic) / "manifest.json").write_text("{", "utf-8")
    found = valid(client, "/v1/models")
    (damaged,) = [each for each in found["versions"] if each["version"] == basic]
    assert damaged["refused"]
    assert "metrics" not in damaged
    problem = valid(client, f"/v1/models/{basic}", 409)
    assert problem["title"] == "Version Refused"


def test_an_empty_store_has_no_versions(tmp_path: Any) -> None:
    answer = (
        create_app(Settings(tmp_path / "store"), on_loopback=True).test_client().get("/v1/models")
    )
    assert answer.json == {"champion": None, "challenger": None, "versions": [], "history": []}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/any", "/v1/drift?model=any"])
def test_a_folder_that_can_not_be_read_is_a_503(
    client: FlaskClient, store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    def failing(_: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for method in ("iterdir", "is_dir"):
        monkeypatch.setattr(Path, method, failing)
    answer = client.get(path)
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["title"] == "Store Fault"
    assert str(store.root) not in answer.text
    services_of(client.application).serving_models.refresh()
    ready = client.get("/readyz")
    assert ready.json is not None
    assert ready.json["refused"] == "the store can't be read; the log has the reason"
    assert ready.json["status"] == "ready"


def test_a_version_that_can_not_be_read_is_listed_as_refused(
    client: FlaskClient, version_of: VersionOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    unreadable = version_of("basic")

    def failing(path: Path, *, own: Any = Path.is_file) -> bool:
        if path.parent.name == unreadable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return bool(own(path))

    monkeypatch.setattr(Path, "is_file", failing)
    assert unreadable in [v["version"] for v in valid(client, "/v1/models")["versions"]]
