"""The pages of model versions: the list, one version, its documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.stores import VersionOf
from peerloan.registry import Store
from peerloan.settings import Settings


@pytest.fixture
def client(store: Store, version_of: VersionOf) -> FlaskClient:
    """A service with a champion and a challenger."""
    store.promote(version_of("additive"), "the better one")
    store.challenge(version_of("basic"))
    return create_app(Settings(store.root), on_loopback=True).test_client()


def test_the_list_shows_every_version_with_its_alias_and_the_history(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    page = client.get("/models").text
    for version in store.versions():
        assert f'href="/models/{version}"' in page
    rows = page.split("<tr>")
    (champion,) = [row for row in rows if 'class="alias">champion' in row]
    (challenger,) = [row for row in rows if 'class="alias">challenger' in row]
    assert version_of("additive") in champion
    assert version_of("basic") in challenger
    manifest = store.manifest(version_of("additive"))
    assert f"{manifest.metrics['auc']:.3f}" in champion
    assert "the better one" in page


def test_a_store_without_versions_says_how_to_train_one(tmp_path: Path) -> None:
    page = create_app(Settings(tmp_path / "store"), on_loopback=True).test_client().get("/models")
    assert page.status_code == 200
    assert "peerloan train BOOK --promote" in page.text


def test_a_version_that_can_not_be_read_is_listed_with_the_reason(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    broken = version_of("basic")
    (store.root / "versions" / broken / "manifest.json").write_text("{}")
    page = client.get("/models")
    assert page.status_code == 200
    assert "can't be read:" in page.text
    assert client.get(f"/models/{broken}").status_code == 409


def test_one_version_shows_its_figures_policy_and_fields(
    client: FlaskClient, store: Store, version_of: VersionOf
) -> None:
    version = version_of("additive")
    manifest = store.manifest(version)
    page = client.get(f"/models/{version}").text
    assert f"{manifest.metrics['auc']:.4f}" in page
    assert f"{100 * manifest.policy.threshold:.2f} %" in page
    assert f"{manifest.trained_on.loans:,} loans" in page
    for field in store.definition(version).fields:
        assert field.label in page
    assert f'href="/decisions?version={version}"' in page


@pytest.mark.parametrize(("name", "kind"), [("report.html", "html"), ("card.md", "markdown")])
def test_documents_are_downloads(
    client: FlaskClient, store: Store, version_of: VersionOf, name: str, kind: str
) -> None:
    version = version_of("additive")
    answer = client.get(f"/models/{version}/{name}")
    assert answer.status_code == 200
    assert answer.mimetype == f"text/{kind}"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{version}-{name}"'
    assert answer.text == store.document(version, name)


@pytest.mark.parametrize("path", ["/models/nobody", "/models/nobody/report.html", "/models/.."])
def test_an_unknown_version_is_not_found(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "secret"])
def test_only_documents_can_be_downloaded(
    client: FlaskClient, version_of: VersionOf, name: str
) -> None:
    assert client.get(f"/models/{version_of('basic')}/{name}").status_code == 404
