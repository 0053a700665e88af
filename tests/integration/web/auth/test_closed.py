"""What stays closed: sessions that ended, tokens that are gone or that others can write to, what
nobody without a token is told, and forms and heads that only look right.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from itsdangerous import URLSafeTimedSerializer

from helpers.apps import create_app
from helpers.commands import Run
from helpers.probes import eventually
from helpers.service import Serve, bearer
from helpers.stores import VersionOf
from peerloan import __version__
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens, digest_of
from peerloan.web.services import services_of

COOKIE = "peerloan_session"


@pytest.fixture
def settings_of(champion: Store, tmp_path: Path) -> Settings:
    return Settings(champion.root, tmp_path / "tokens")


def client_of(settings: Settings, on_loopback: bool = False) -> FlaskClient:
    return create_app(settings, on_loopback=on_loopback).test_client(use_cookies=False)


# Sessions


class Browser:
    """What a browser keeps, sent to whichever worker."""

    def __init__(self, client: FlaskClient, token: str) -> None:
        answer = client.post("/sign-in", data={"token": token})
        assert answer.status_code == 303
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0].partition("=")[2]

    def enters(self, client: FlaskClient, cookie: str | None = None) -> bool:
        status = client.get("/", headers=head(cookie or self.cookie)).status_code
        assert status in (200, 401)
        return status == 200

    def sign_out(self, client: FlaskClient) -> Any:
        return client.post("/sign-out", headers=head(self.cookie))


def head(cookie: str) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={cookie}"}


def test_signing_out_ends_a_copied_cookie_in_every_worker(settings_of: Settings) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    workers = [client_of(settings_of) for _ in range(2)]
    browser, other = Browser(workers[0], token), Browser(workers[0], token)
    assert all(each.enters(worker) for each in (browser, other) for worker in workers)
    answer = browser.sign_out(workers[1])
    assert answer.status_code == 303
    assert f"{COOKIE}=;" in answer.headers["Set-Cookie"]
    workers.append(client_of(settings_of))  # as after a restart
    for worker in workers:
        assert not browser.enters(worker)
        assert other.enters(worker), "another browser of the same token goes on"
        assert worker.get("/v1/models", headers=bearer(token)).status_code == 200
    assert browser.sign_out(workers[0]).status_code == 303
    again = Browser(workers[0], token)
    assert again.enters(workers[1])


@pytest.mark.longer
def test_a_server_s_every_worker_refuses_a_copied_cookie(
    champion: Store, serve: Serve, run: Run
) -> None:
    token = run("token", "new", "anna").stdout.strip()
    service = serve(champion, workers=2)
    browser = requests.Session()
    assert browser.post(f"{service.url}/sign-in", data={"token": token}, timeout=10).ok
    copied = head(browser.cookies[COOKIE])

    def statuses() -> set[int]:
        # A connection of its own each, so that both workers answer.
        return {
            requests.get(service.url, headers=copied, timeout=10).status_code for _ in range(20)
        }

    assert statuses() == {200}
    browser.post(f"{service.url}/sign-out", timeout=10)
    assert statuses() == {401}


def test_another_spelling_of_an_ended_cookie_is_ended_too(settings_of: Settings) -> None:
    """The last letter of a signature holds bits that nobody looks at."""
    client = client_of(settings_of)
    eventually(lambda: client.get("/v1/models").status_code == 401)
    token = Tokens(settings_of.tokens).new("anna")
    eventually(lambda: client.get("/v1/models", headers=bearer(token)).status_code == 200)
    browser = Browser(client, token)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    spellings = [browser.cookie[:-1] + letter for letter in letters]
    spellings += [browser.cookie + "=", browser.cookie + "=="]
    same = [each for each in spellings if browser.enters(client, each)]
    assert len(same) > 1
    browser.sign_out(client)
    assert not any(browser.enters(client, each) for each in same)


def test_a_session_of_the_release_before_goes_on_and_can_be_ended(settings_of: Settings) -> None:
    tokens = Tokens(settings_of.tokens)
    tokens.new("anna")
    (token,) = tokens.read()
    signer = URLSafeTimedSerializer(tokens.key(), salt="session")
    cookie = str(signer.dumps([token.name, token.digest[:16]]))
    client = client_of(settings_of)
    assert client.get("/", headers=head(cookie)).status_code == 200
    client.post("/sign-out", headers=head(cookie))
    assert client.get("/", headers=head(cookie)).status_code == 401


def test_sessions_that_ended_are_noted_until_they_would_have_anyway(settings_of: Settings) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    client = client_of(settings_of)
    noted = settings_of.ended_sessions
    Browser(client, token).sign_out(client)
    (first,) = noted.iterdir()
    assert first.stat().st_size == 0
    assert first.stat().st_mode & 0o777 == 0o600
    second = int(first.name.partition("-")[0])
    old, recent = (noted / f"{second - hours * 3600}-{'0' * 32}" for hours in (14, 11))
    old.touch()
    recent.touch()
    Browser(client, token).sign_out(client)
    names = {each.name for each in noted.iterdir()}
    assert len(names) == 3
    assert {first.name, recent.name} < names
    # Who has no session notes nothing.
    for cookie in ("", "x", "a.b.c"):
        assert client.post("/sign-out", headers=head(cookie)).status_code == 303
    assert {each.name for each in noted.iterdir()} == names


def test_a_session_that_nobody_has_is_not_noted(settings_of: Settings) -> None:
    """Where no token was made there is no key, and anybody could sign one."""
    for key in (b"", b"another's"):
        cookie = str(URLSafeTimedSerializer(key, salt="session").dumps(["anna", "0" * 16, "1"]))
        client = client_of(settings_of)
        assert client.post("/sign-out", headers=head(cookie)).status_code == 303
        assert client.get("/", headers=head(cookie)).status_code == 401
    assert not settings_of.ended_sessions.exists()


def test_a_session_that_can_not_be_ended_is_told(
    settings_of: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    client = client_of(settings_of)
    browser = Browser(client, token)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr(os, "link", full)
        answer = browser.sign_out(client)
    assert answer.status_code == 503
    assert "peerloan token revoke NAME" in answer.text
    assert f"{COOKIE}=;" in answer.headers["Set-Cookie"], "this browser is signed out"
    assert "No space left" in caplog.text
    assert str(settings_of.seal_folder) not in answer.text


def test_where_ended_sessions_can_not_be_read_none_holds(settings_of: Settings) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    client = client_of(settings_of)
    browser = Browser(client, token)
    assert browser.enters(client)
    settings_of.ended_sessions.write_text("a file")
    assert not browser.enters(client)
    assert client.get("/", headers=bearer(token)).status_code == 200


def test_revoking_a_token_ends_its_sessions_alone(settings_of: Settings) -> None:
    tokens = Tokens(settings_of.tokens)
    client_tokens = tokens.new("anna"), tokens.new("otto", scopes=["predict"])
    client = client_of(settings_of)
    anna, otto = (Browser(client, each) for each in client_tokens)
    assert anna.enters(client)
    tokens.revoke("anna")
    eventually(lambda: not anna.enters(client))
    assert otto.enters(client)
    again = tokens.new("anna", scopes=["predict"])
    eventually(lambda: client.get("/", headers=bearer(again)).status_code == 200)
    assert not anna.enters(client)
    tokens.revoke("otto")
    eventually(lambda: not otto.enters(client))


# Tokens that are gone


def test_without_the_folder_of_tokens_a_restart_opens_nothing(
    champion: Store, serve: Serve, run: Run, tmp_path: Path
) -> None:
    service = serve(champion)
    assert requests.get(f"{service.url}/v1/models", timeout=10).ok
    assert run("token", "new", "anna").returncode == 0
    service.wait_for(lambda: requests.get(f"{service.url}/v1/models").status_code == 401)
    service.stop()
    folder, marker = tmp_path / "tokens", tmp_path / "peerloan-seal" / "tokens-made"
    folder.rename(tmp_path / "elsewhere")

    service = serve(champion)
    answer = requests.get(f"{service.url}/v1/models", timeout=10)
    assert answer.status_code == 503
    assert str(tmp_path) not in answer.text
    assert requests.get(service.url, timeout=10).status_code == 401
    said = f"{folder} has no tokens, but {marker} records that some were made; restore the folder"
    assert said in service.log.read_text()
    refused = run("token", "new", "otto")
    assert refused.returncode == 1
    assert said in refused.stderr
    assert "or remove that file to start again without tokens" in refused.stderr
    # It comes back, or somebody begins anew.
    shutil.rmtree(folder)
    (tmp_path / "elsewhere").rename(folder)
    service.wait_for(lambda: requests.get(f"{service.url}/v1/models").status_code == 401)
    service.stop()
    shutil.rmtree(folder)
    marker.unlink()
    service = serve(champion)
    assert requests.get(f"{service.url}/v1/models", timeout=10).ok


def test_tokens_of_the_release_before_are_marked_by_the_service(settings_of: Settings) -> None:
    Tokens(settings_of.tokens).new("anna")  # without a marker
    assert not settings_of.tokens_marker.exists()
    assert client_of(settings_of, on_loopback=True).get("/v1/models").status_code == 401
    assert settings_of.tokens_marker.exists()
    shutil.rmtree(settings_of.tokens)
    assert client_of(settings_of, on_loopback=True).get("/v1/models").status_code == 503


def test_making_a_token_marks_it_where_the_service_was(settings_of: Settings) -> None:
    """Who makes tokens may be root, and must not make the folder of those who serve."""
    tokens = Tokens(settings_of.tokens, settings_of.tokens_marker)
    tokens.new("anna")
    assert not settings_of.seal_folder.exists()
    settings_of.seal_folder.mkdir()
    tokens.new("otto", scopes=["metrics"])
    assert "Remove this file to start again without tokens" in settings_of.tokens_marker.read_text()


# Tokens that others can write to


@pytest.mark.parametrize(
    ("name", "mode", "said"),
    [
        (".", 0o777, "written to"),
        (".", 0o1777, "written to"),
        (".", 0o702, "written to"),
        ("key", 0o604, "read"),
        ("key", 0o666, "written to"),
        ("tokens.json", 0o644, "read"),
        ("tokens.json", 0o602, "written to"),
        ("scoped.json", 0o666, "written to"),
    ],
)
def test_tokens_that_others_can_write_to_open_nothing(
    settings_of: Settings, run: Run, name: str, mode: int, said: str
) -> None:
    tokens = Tokens(settings_of.tokens)
    token = tokens.new("anna")
    tokens.new("prometheus", scopes=["metrics"])
    path = settings_of.tokens / name
    path.chmod(mode)
    listed = run("token", "list")
    assert listed.returncode == 1
    why = f"can be {said} by every user of this machine (mode {mode:04o})"
    assert why in listed.stderr
    assert f"chmod o-{'w' if name == '.' else 'rwx'} " in listed.stderr
    client = client_of(settings_of, on_loopback=True)
    for sent in ({}, bearer(token)):
        assert client.get("/v1/models", headers=sent).status_code == 503
    path.chmod(0o700 if name == "." else 0o600)
    eventually(lambda: client.get("/v1/models", headers=bearer(token)).status_code == 200)
    assert run("token", "list").returncode == 0


@pytest.mark.parametrize("name", ["tokens.json", "key", "scoped.json"])
def test_a_pipe_in_place_of_a_file_of_tokens_opens_nothing_and_is_not_waited_for(
    settings_of: Settings, run: Run, name: str
) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    path = settings_of.tokens / name
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)
    made = run("token", "new", "bert")
    assert (made.returncode, made.stdout) == (1, "")
    assert f"{path} can't be read: is a pipe, expected a regular file" in made.stderr
    client = client_of(settings_of, on_loopback=True)
    for sent in ({}, bearer(token)):
        assert client.get("/v1/models", headers=sent).status_code == 503


def test_an_empty_folder_that_others_can_write_to_opens_nothing(
    settings_of: Settings, run: Run
) -> None:
    """Anybody could put a token there, an operator's as well."""
    settings_of.tokens.mkdir()
    settings_of.tokens.chmod(0o777)
    assert client_of(settings_of, on_loopback=True).get("/v1/models").status_code == 503
    assert run("token", "new", "anna").returncode == 1
    assert not (settings_of.tokens / "key").exists()


@pytest.mark.parametrize("modes", [(0o755, 0o600), (0o2770, 0o660), (0o750, 0o440)])
def test_volumes_may_be_a_group_s(settings_of: Settings, modes: tuple[int, int]) -> None:
    """As the images have them, as Kubernetes makes them by fsGroup, and as secrets are mounted."""
    token = Tokens(settings_of.tokens).new("anna")
    settings_of.tokens.chmod(modes[0])
    for name in ("key", "tokens.json"):
        (settings_of.tokens / name).chmod(modes[1])
    client = client_of(settings_of)
    assert client.get("/v1/models", headers=bearer(token)).status_code == 200


# What nobody without a token is told


def test_health_names_no_path_and_no_version_to_whoever_asks(
    champion: Store, settings_of: Settings, version_of: VersionOf
) -> None:
    token = Tokens(settings_of.tokens).new("anna")
    version = version_of("additive")
    digest = champion.read(version)[1]
    healthy = client_of(settings_of)
    scorecard = champion.folder(version) / "scorecard.json"
    scorecard.write_bytes(scorecard.read_bytes()[:-1])
    champion.challenge(version_of("basic"))
    for client, ready in ((healthy, 200), (client_of(settings_of), 503)):
        for method in ("GET", "POST", "PUT"):
            for path in (
                *("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/sign-in"),
                *("/sign-out", "/", "/docs", "/openapi.json", "/nothing", "/v1/nothing", "/v2"),
                *("/static/none", "/metrics", "/healthz/", "/v2/health", "/docs/static/none"),
            ):
                answer = client.open(path, method=method)
                told = f"{answer.headers}{answer.text}"
                for secret in (
                    *(version, version_of("basic"), digest, digest[:12], "scorecard.json"),
                    *(str(champion.root), str(settings_of.tokens), __version__, "Traceback"),
                ):
                    assert secret not in told, (method, path, secret)
        assert client.get("/readyz").status_code == ready
        assert set(client.get("/readyz").json) == {"status", "ledger"}  # type: ignore[arg-type]
        # Who has a token learns it.
        known: Any = client.get("/readyz", headers=bearer(token)).json
        if ready == 200:
            assert known["model"] == {"version": version, "digest": digest}
        else:
            assert "scorecard.json" in known["refused"]
            assert client.get("/healthz", headers=bearer(token)).json == {"status": "unhealthy"}
            said = client.post("/v1/predictions", json={}, headers=bearer(token))
            assert "scorecard.json" in said.text


# Forms and heads that only look right


HOSTS = [
    *("", " ", ".", "..", ":", ":5000", "/", "//", "@", "evil.example", "evil.example:5000"),
    *("localhost.", "localhost.evil.example", "evil.localhost", "xlocalhost", "localhost@evil"),
    *("localhost:80@evil.example", "localhost#evil", "localhost/evil", "localhost\\evil"),
    *("127.0.0.1.evil.example", "127.0.0.1.", "127.1", "127.0.1", "0x7f000001", "2130706433"),
    *("0177.0.0.1", "127.0.0.01", "0.0.0.0", "0", "[::]", "[::1", "::1]", "[::1]evil"),
    *("[::ffff:127.0.0.1%25lo]", "[fe80::1]", "10.0.0.1", "192.168.1.1", "\u00b9\u00b27.0.0.1"),
    *("evil@localhost", "evil:x@localhost:5000", "localhost?evil", "local\thost", "localhost:"),
    *("loc\u0430lhost", "localhost,evil.example", "localhost evil", "evil.example localhost"),
]


def test_a_name_that_only_looks_like_this_machine_is_not_let_in(settings_of: Settings) -> None:
    client = client_of(settings_of, on_loopback=True)
    assert len(HOSTS) >= 39
    for host in HOSTS:
        sent = {"HTTP_HOST": host.encode().decode("latin-1")}
        answer = client.get("/v1/models", environ_overrides=sent)
        assert answer.status_code in (400, 401), host
    for host in ("localhost", "LOCALHOST:5000", "127.0.0.1", "127.8.9.10:80", "[::1]:5000"):
        answer = client.get("/v1/models", environ_overrides={"HTTP_HOST": host})
        assert answer.status_code == 200, host


@pytest.fixture(scope="module")
def desk(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[FlaskClient, str]:
    """A service that asks for tokens, and a person's token."""
    folder = tmp_path_factory.mktemp("desk")
    token = Tokens(folder / "tokens").new("anna")
    ledger = f"sqlite:///{folder / 'ledger.db'}"
    settings = Settings(trained, folder / "tokens", ledger, seal=folder / "seal")
    return client_of(settings), token


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", FORM),
        (b"token", FORM),
        (b"token=", FORM),
        (b"token=%00", FORM),
        (b"token=%ff%fe", FORM),
        (b"\xff\xfe\x00", FORM),
        (b"TOKEN={}", FORM),
        (b"token[]={}", FORM),
        (b"token=x&token={}", FORM),
        (b"token={}x", FORM),
        (b"token=Bearer%20{}", FORM),
        (b"token={}", "text/plain"),
        (b"token={}", ""),
        (b'{"token": "{}"}', "application/json"),
        (b"token={}", "application/x-www-form-urlencoded-not"),
        (b"--b\r\n\r\n{}\r\n--b--", "multipart/form-data; boundary=b"),
        (b"token={}", "multipart/form-data"),
        (b"--b", "multipart/form-data; boundary=" + "b" * 5000),
        (b"&" * 9_000, FORM),
        (b"token=" + b"x" * 20_000, FORM),
    ],
)
def test_odd_bodies_sign_nobody_in(desk: tuple[FlaskClient, str], body: bytes, kind: str) -> None:
    client, token = desk
    sent = body.replace(b"{}", token.encode())
    answer = client.post("/sign-in", data=sent, content_type=kind)
    assert 400 <= answer.status_code < 500
    assert "Set-Cookie" not in answer.headers
    assert token not in answer.text


@pytest.mark.parametrize(
    "target",
    [
        *(
            "https://evil.example",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\\\evil",
        ),
        *("/%09/evil.example/../..", "/\t/evil.example", "/\r\nLocation: https://evil.example"),
        *("javascript:alert(1)", "data:text/html,x", "/..//evil.example", "/./evil", "/%2e%2E/x"),
        *(" /docs", "http:/evil.example", "evil.example", "/\u2028//evil", "/" + "a" * 3000),
    ],
)
def test_signing_in_leads_to_no_other_site(desk: tuple[FlaskClient, str], target: str) -> None:
    client, token = desk
    answer = client.post("/sign-in", data={"token": token, "next": target})
    assert (answer.status_code, answer.headers["Location"]) in {(303, "/")}
    assert len(answer.headers.getlist("Set-Cookie")) == 1


def test_a_page_of_another_site_ends_no_session(desk: tuple[FlaskClient, str]) -> None:
    client, token = desk
    browser = Browser(client, token)
    for other in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "SAME-ORIGIN"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
    ):
        sent = head(browser.cookie) | other
        assert client.post("/sign-out", headers=sent).status_code == 403, other
        assert client.post("/", headers=sent, data={}).status_code == 403, other
    assert browser.enters(client)


def test_a_token_is_found_by_its_keyed_hash_and_never_compared_itself(
    desk: tuple[FlaskClient, str], tmp_path: Path
) -> None:
    """So how long a wrong one takes tells nothing of a right one to whoever lacks the key."""
    client, token = desk
    authenticator = services_of(client.application).authenticator
    known = authenticator.snapshot()
    assert list(known.by_digest) == [digest_of(known.key, token)]
    assert token not in repr(known)
    other = Tokens(tmp_path / "tokens")
    other.new("anna")
    assert digest_of(other.key(), token) != digest_of(known.key, token)
