"""Behind a path prefix: every address that the service writes leads back to it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.stores import champion_store
from peerloan.settings import SERVICE_PATHS, Settings, SettingsError, read_settings
from peerloan.web.auth.tokens import Tokens
from peerloan.web.services import services_of

PREFIX = "/risk"
FORWARDED = {"X-Forwarded-Prefix": "/other", "X-Script-Name": "/other"}
PERSON = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
Start = Callable[..., Flask]


@pytest.fixture(scope="module")
def start(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Make an application under a prefix, with a champion and a token."""
    folder = tmp_path_factory.mktemp("prefix")
    store = champion_store(trained, folder)
    token = Tokens(folder / "tokens").new("anna", operator=False)

    def make(prefix: str = PREFIX) -> Flask:
        app = create_app(Settings(store.root, folder / "tokens", prefix=prefix))
        app.config["TOKEN"] = token
        return app

    return make


@pytest.fixture(scope="module")
def app(start: Start) -> Flask:
    return start()


def sign_in(client: FlaskClient, path: str, target: str = "/docs") -> Any:
    form = {"token": client.application.config["TOKEN"], "next": target}
    return client.post(path, data=form, headers=PERSON)


def addresses(html: str) -> list[str]:
    """Every address in a page."""
    return re.findall(r'(?:href|src|action|data-description)="([^"#]+)', html)


@pytest.mark.parametrize("taken_off", [True, False])
def test_every_address_leads_back_whether_the_proxy_takes_the_prefix_off_or_not(
    app: Flask, loan: dict[str, Any], taken_off: bool
) -> None:
    before = "" if taken_off else PREFIX
    client = app.test_client(use_cookies=False)
    asked = client.get(f"{before}/docs", headers=PERSON | FORWARDED)
    assert asked.status_code == 401
    signed_in = sign_in(client, f"{before}/sign-in")
    assert signed_in.status_code == 303
    assert signed_in.headers["Location"] == f"{PREFIX}/docs"
    cookie = signed_in.headers["Set-Cookie"]
    assert re.search(r"; Path=/risk(;|$)", cookie)
    head = PERSON | FORWARDED | {"Cookie": cookie.split(";")[0]}
    form = client.get(f"{before}/", headers=head)
    decided = client.post(
        f"{before}/", data={f"field.{k}": v for k, v in loan.items()}, headers=head
    )
    reference = client.get(f"{before}/docs", headers=head)
    lost = client.get(f"{before}/nothing", headers=head)
    statuses = [page.status_code for page in (form, decided, reference, lost)]
    assert statuses == [200, 200, 200, 404]
    for page in (asked, form, decided, reference, lost):
        found = addresses(page.text)
        assert found
        assert all(each.startswith(f"{PREFIX}/") for each in found)
        for style in {each for each in found if "static" in each}:
            assert client.get(style, headers=head).status_code == 200
    described: Any = client.get(f"{before}/openapi.json", headers=head).json
    assert described["servers"] == [{"url": PREFIX}]
    signed_out = client.post(f"{before}/sign-out", headers=head)
    assert signed_out.headers["Location"] == f"{PREFIX}/"
    ended = signed_out.headers.getlist("Set-Cookie")
    assert sorted(re.findall(r"; Path=([^;\s]*)", "\n".join(ended))) == ["/", PREFIX]
    assert all("Max-Age=0" in each for each in ended)


def test_the_api_is_the_same_with_and_without_the_prefix(app: Flask, loan: dict[str, Any]) -> None:
    client = app.test_client()
    head = {"Authorization": f"Bearer {app.config['TOKEN']}", "Idempotency-Key": "same"}
    first, again = (
        client.post(f"{before}/v1/predictions", json=loan, headers=head) for before in ("", PREFIX)
    )
    assert first.status_code == 200
    # The address is part of what a key stands for.
    assert again.data == first.data
    assert client.get(f"{PREFIX}/healthz").status_code == 200
    assert client.get(PREFIX).status_code == 401
    assert client.get("/riskier/healthz").status_code == 401
    assert client.get(f"{PREFIX}{PREFIX}/healthz", headers=head).status_code == 404
    said: Any = client.post(f"{PREFIX}/predict", json=loan, headers=head).json
    assert f"Did you mean {PREFIX}/v1/predictions?" in said["detail"]


@pytest.mark.parametrize("hostile", ["//evil.example", "/a/../b", "https://evil.example", '"><x'])
def test_no_header_says_where_the_service_is(start: Start, hostile: str) -> None:
    names = ("X-Forwarded-Prefix", "X-Script-Name", "Script-Name", "X-Original-URI")
    for prefix in ("", PREFIX):
        client = start(prefix).test_client()
        head = PERSON | dict.fromkeys(names, hostile)
        page = client.get("/docs", headers=head, environ_overrides={"SCRIPT_NAME": hostile})
        assert page.status_code == 401
        assert hostile not in page.text
        answer = client.post(
            "/sign-in",
            data={"token": client.application.config["TOKEN"], "next": "/docs"},
            headers=head,
            environ_overrides={"SCRIPT_NAME": hostile},
        )
        assert answer.headers["Location"] == f"{prefix}/docs"


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/?a=b", "/risk/?a=b"),
        ("/docs", "/risk/docs"),
        ("//evil.example", "/risk/"),
        ("/../admin", "/risk/"),
        ("/docs/..", "/risk/"),
        ("/docs/%2E%2e/../admin", "/risk/"),
        ("/docs/.%2e/admin", "/risk/"),
        ("/\\evil.example", "/risk/"),
        ("https://evil.example", "/risk/"),
    ],
)
def test_the_way_back_stays_under_the_prefix(app: Flask, target: str, leads_to: str) -> None:
    assert sign_in(app.test_client(), "/sign-in", target).headers["Location"] == leads_to


def test_a_page_of_another_site_still_changes_nothing(app: Flask) -> None:
    client = app.test_client()
    for head in ({"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}):
        for before in ("", PREFIX):
            assert client.post(f"{before}/sign-out", headers=head).status_code == 403


def test_behind_a_prefix_loopback_is_as_closed_as_before(start: Start, tmp_path: Path) -> None:
    store = services_of(start()).store.root
    ledger = f"sqlite:///{tmp_path / 'l.db'}"
    seal = tmp_path / "seal"
    settings = Settings(store, tmp_path / "tokens", ledger, seal=seal, prefix=PREFIX)
    client = create_app(settings, on_loopback=True).test_client()
    for path in ("/v1/models", f"{PREFIX}/v1/models"):
        assert client.get(path).status_code == 200
        assert client.get(path, headers={"X-Forwarded-Prefix": PREFIX}).status_code == 401
        assert client.get(path, headers={"Host": "evil.example"}).status_code == 401


# The setting


@pytest.mark.parametrize("prefix", ["", "/risk", "/a/b.c/~d_e-f", "/...", "/V1", "/docs2"])
def test_a_prefix_is_a_path(prefix: str) -> None:
    assert read_settings({"PEERLOAN_PREFIX": prefix}).prefix == prefix


@pytest.mark.parametrize(
    "prefix",
    [
        *("risk", "/", "/risk/", "//evil.example", "/a//b", "/a/../b", "/..", "/./a", "/."),
        *("/a?b", "/a#b", "/a b", '/"', "/'", "/<a>", "/a\r\nX: y", "/a\n", "/%2e%2e", "/é", "\\a"),
        *("https://evil.example", "/" + "a" * 200, "/docs", "/v1/risk", "/static"),
    ],
)
def test_another_prefix_is_refused_by_name(prefix: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"PEERLOAN_PREFIX \(prefix\): expected a path "):
        read_settings({"PEERLOAN_PREFIX": prefix})
    file = tmp_path / "peerloan.toml"
    file.write_text(f"prefix = {prefix!a}".replace("\\x", "\\u00"), "utf-8")
    with pytest.raises(SettingsError):
        read_settings({"PEERLOAN_CONFIG": str(file)})


def test_the_service_s_own_addresses_are_those_that_no_prefix_may_begin_with(app: Flask) -> None:
    rules = {rule.rule.split("/")[1] for rule in app.url_map.iter_rules()}
    assert rules - {""} == set(SERVICE_PATHS)
