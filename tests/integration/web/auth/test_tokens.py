"""Who may call: tokens from the command line, and a service that asks for them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.commands import Call
from helpers.ports import free_port
from helpers.service import Serve, Service, bearer, settings
from helpers.stores import VersionOf
from peerloan.registry import Store
from peerloan.web.auth.authentication import Authenticator
from peerloan.web.auth.sessions import Sessions
from peerloan.web.auth.tokens import Tokens

FREE = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
GUARDED = (
    *("/", "/v1/models", "/v1/models/none", "/openapi.json", "/metrics", "/nothing"),
    *("/v1/predictions", "/docs", "/v2", "/v2/models/late-payments"),
    "/v2/models/late-payments/infer",
)


def new(call: Call, name: str, *options: str) -> str:
    """Make a token."""
    done = call("token", "new", name, *options)
    assert done.code == 0, done.err
    return done.out.strip()


# The command line


def test_a_token_is_shown_once_and_kept_only_as_a_hash(call: Call, tmp_path: Path) -> None:
    made = call("token", "new", "loans-app")
    token = made.out.strip()
    assert token.startswith("peerloan_")
    assert len(token) > 50
    assert token not in made.err
    kept = [path for path in (tmp_path / "tokens").iterdir() if path.is_file()]
    assert kept
    for path in kept:
        assert token.encode() not in path.read_bytes()
        assert token.removeprefix("peerloan_").encode() not in path.read_bytes()
    for name in ("key", "tokens.json"):
        assert (tmp_path / "tokens" / name).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tokens").stat().st_mode & 0o777 == 0o700


def test_list_names_who_has_one(call: Call) -> None:
    assert "no tokens; make one with: peerloan token new NAME" in call("token", "list").err
    assert json.loads(call("token", "list", "--json").out) == []
    new(call, "loans-app")
    new(call, "anna", "--operator")
    listed = json.loads(call("token", "list", "--json").out)
    assert [(each["name"], each["operator"]) for each in listed] == [
        ("loans-app", False),
        ("anna", True),
    ]
    assert all(set(each) == {"name", "operator", "scopes", "created"} for each in listed)
    text = call("token", "list").out
    assert "loans-app" in text
    assert text.count("operator") == 1


def test_a_name_has_one_token_until_it_is_revoked(call: Call) -> None:
    first = new(call, "loans-app")
    again = call("token", "new", "loans-app")
    assert again.code == 1
    assert "loans-app already has a token; revoke it" in again.err
    assert not again.out
    assert call("token", "revoke", "loans-app").code == 0
    assert new(call, "loans-app") != first


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "new\nline", "ä"])
def test_a_name_is_plain(call: Call, name: str) -> None:
    done = call("token", "new", "--", name)
    assert done.code == 1
    assert "is not a valid name: expected at most 64 letters" in done.err
    assert "Traceback" not in done.err


def test_who_has_no_token_can_lose_none(call: Call, tmp_path: Path) -> None:
    new(call, "loans-app")
    done = call("token", "revoke", "anna")
    assert done.code == 1
    assert "'anna' has no token; callers with one: loans-app" in done.err
    assert len(json.loads(call("token", "list", "--json").out)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 2, "tokens": []}', b"\xff"])
def test_what_can_not_be_read_is_named_and_stays(
    call: Call, tmp_path: Path, content: bytes
) -> None:
    new(call, "loans-app")
    path = tmp_path / "tokens/tokens.json"
    path.write_bytes(content)
    for arguments in (("list",), ("new", "anna"), ("revoke", "loans-app")):
        done = call("token", *arguments)
        assert done.code == 1, arguments
        assert f"{path} can't be read" in done.err
        assert "Traceback" not in done.err
    assert path.read_bytes() == content


def test_a_folder_that_can_not_be_made_is_named(call: Call, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("a file")
    done = call("token", "new", "loans-app")
    assert done.code == 1
    assert f"{tmp_path / 'tokens'}: can't be written: File exists" in done.err


def test_tokens_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "peerloan", "token", "new"]
    environment = os.environ | settings(tmp_path / "store")
    made = [subprocess.Popen([*command, f"app-{i}"], env=environment) for i in range(6)]
    assert [process.wait(60) for process in made] == [0] * 6
    kept = json.loads((tmp_path / "tokens/tokens.json").read_text())["tokens"]
    assert {each["name"] for each in kept} == {f"app-{i}" for i in range(6)}


# The service


def test_on_loopback_it_is_open_until_the_first_token_and_says_so(
    champion: Store, serve: Serve, call: Call, loan: dict[str, Any]
) -> None:
    service = serve(champion)
    assert "open to this machine" in service.log.read_text()
    for path in ("/", "/nothing"):
        assert (
            "Everybody on this machine can use this service"
            in requests.get(service.url + path).text
        )
    assert requests.post(f"{service.url}/v1/predictions", json=loan).status_code == 200
    token = new(call, "loans-app")
    service.wait_for(lambda: requests.get(f"{service.url}/v1/models").status_code == 401, 5)
    answer = requests.post(f"{service.url}/v1/predictions", json=loan, headers=bearer(token))
    assert answer.status_code == 200
    assert "Everybody on this machine" not in requests.get(service.url, headers=bearer(token)).text


def test_a_name_of_loopback_is_served_on_loopback_and_open(
    champion: Store, serve: Serve, loan: dict[str, Any]
) -> None:
    service = serve(champion, host="localhost")
    assert f"PeerLoan Risk on {service.url}/ (localhost)" in service.log.read_text()
    assert requests.post(f"{service.url}/v1/predictions", json=loan).status_code == 200


@pytest.fixture
def beyond(champion: Store, serve: Serve) -> Service:
    """A service that others than this machine can reach."""
    return serve(champion, host="0.0.0.0")


def test_beyond_loopback_and_without_a_token_only_health_is_answered(
    beyond: Service, loan: dict[str, Any]
) -> None:
    assert (
        "only health checks are answered; make one with `peerloan token new NAME`"
        in beyond.log.read_text()
    )
    for path in FREE:
        assert requests.get(beyond.url + path).status_code == 200
    for path in GUARDED:
        answer = requests.get(beyond.url + path)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "peerloan token new NAME" in answer.text
    answer = requests.post(f"{beyond.url}/v1/predictions", json=loan)
    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"] == (
        "expected a token, but none exists yet; make one with: peerloan token new NAME"
    )
    assert requests.post(f"{beyond.url}/", data={}).status_code == 401


def test_a_token_opens_everything_but_the_choice_of_the_champion(
    beyond: Service, call: Call, loan: dict[str, Any], version_of: VersionOf
) -> None:
    head = bearer(new(call, "loans-app"))
    beyond.wait_for(lambda: requests.get(f"{beyond.url}/v1/models", headers=head).ok, 5)
    for path in ("/", "/v1/models", "/openapi.json", "/metrics"):
        assert requests.get(beyond.url + path, headers=head).status_code == 200, path
        assert requests.get(beyond.url + path).status_code == 401, path
    assert requests.post(f"{beyond.url}/v1/predictions", json=loan, headers=head).ok
    promote = f"{beyond.url}/v1/models/{version_of('basic')}/promote"
    assert requests.post(promote).status_code == 401
    refused = requests.post(promote, headers=head)
    assert refused.status_code == 403
    assert refused.json()["detail"] == (
        "expected an operator's token, given the token of loans-app; "
        "make one with: peerloan token new NAME --operator"
    )


WRONG = ["", "Bearer", "Bearer ", "Bearer x", "Basic x", "bearer", "Bearer peerloan_" + "A" * 43]


@pytest.mark.parametrize("given", [*WRONG, "Bearer \xe4", "Bearer " + "x" * 5000])
def test_a_wrong_token_is_refused(champion: Store, serve: Serve, call: Call, given: str) -> None:
    token = new(call, "loans-app")
    service = serve(champion)
    for value in (given, given.replace("x", token[:-1])):
        head = {"Authorization": value.encode("latin-1")}
        answer = requests.get(f"{service.url}/v1/models", headers=head)
        assert answer.status_code == 401, value
        assert "make one with: peerloan token new NAME" in answer.json()["detail"]
    assert requests.get(f"{service.url}/v1/models", headers=bearer(token)).ok


@pytest.mark.parametrize("how", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_the_word_before_a_token_may_be_written_in_any_case(
    champion: Store, serve: Serve, call: Call, how: str
) -> None:
    token = new(call, "loans-app")
    service = serve(champion)
    head = {"Authorization": how.format(token).strip()}
    assert requests.get(f"{service.url}/v1/models", headers=head).ok


@pytest.mark.parametrize(
    "head",
    [
        {"Host": "evil.example.com"},
        {"Host": socket.gethostname()},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": "localhost.localdomain"},
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Proto": "https"},
        {"Forwarded": "for=203.0.113.9"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "203.0.113.9"},
        {"CF-Connecting-IP": "203.0.113.9"},
        {"CDN-Loop": "cloudflare"},
    ],
)
def test_what_comes_from_elsewhere_is_not_let_in_on_loopback(
    champion: Store, serve: Serve, head: dict[str, str]
) -> None:
    """A proxy on this machine, or a name that somebody made lead here."""
    service = serve(champion)
    # What is no host at all is no request either.
    refused = {400, 401}
    assert requests.get(f"{service.url}/v1/models", headers=head).status_code in refused
    assert requests.get(service.url, headers=head).status_code in refused
    port = service.url.rpartition(":")[2]
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert requests.get(f"{service.url}/v1/models", headers={"Host": host}).ok


def of_http_1_0(url: str, path: str) -> str:
    """The first line of the answer to what Nginx sends for a plain `proxy_pass`, before 1.29.7."""
    place = url.removeprefix("http://")
    host, _, port = place.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"GET {path} HTTP/1.0\r\nHost: {place}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        return connection.recv(1000).decode("latin-1").partition("\r\n")[0]


def test_a_proxy_that_adds_nothing_is_not_let_in_on_loopback(champion: Store, serve: Serve) -> None:
    service = serve(champion)
    for path in ("/", "/v1/models", "/v2", "/metrics"):
        assert " 401 " in of_http_1_0(service.url, path), path
    assert " 200 " in of_http_1_0(service.url, "/healthz")


def test_a_page_of_another_site_changes_nothing(
    champion: Store, serve: Serve, call: Call, version_of: VersionOf
) -> None:
    """Not with who is signed in, and not on an open service."""
    service = serve(champion)
    other: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8888"},
        {"Origin": "http://localhost:8888"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ]
    own = [{}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": service.url}]
    for head in other:
        assert requests.post(service.url, headers=head, data={}).status_code == 403, head
    for head in own:
        assert requests.post(service.url, headers=head, data={}).status_code == 422, head
    token = new(call, "anna", "--operator")
    service.wait_for(lambda: requests.get(f"{service.url}/v1/models").status_code == 401, 5)
    browser = requests.Session()
    assert browser.post(f"{service.url}/sign-in", data={"token": token}).ok
    promote = f"{service.url}/v1/models/{version_of('basic')}/promote"
    for head in other:
        assert browser.post(promote, headers=head).status_code == 403, head
        assert browser.post(f"{service.url}/sign-in", headers=head).status_code == 403, head
    assert champion.state().number == 1
    assert browser.post(promote, headers=own[1]).status_code == 200


def test_another_kind_of_authorization_leaves_who_signed_in(
    champion: Store, serve: Serve, call: Call
) -> None:
    """As behind a proxy that asks for a password of its own."""
    token = new(call, "anna")
    service = serve(champion)
    browser = requests.Session()
    assert browser.post(f"{service.url}/sign-in", data={"token": token}, auth=("a", "b")).ok
    assert browser.get(service.url, auth=("a", "b")).ok


def test_the_sign_in_takes_no_more_than_a_token(champion: Store, serve: Serve, call: Call) -> None:
    new(call, "anna")
    service = serve(champion)
    address = f"{service.url}/sign-in"
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert requests.post(address, data=b"a&" * 100_000, headers=kind).status_code == 413
    for target in (
        "https://evil.example/",
        "javascript:alert(1)",
        "//evil.example",
        "/" + "a" * 3000,
    ):
        page = requests.post(address, data={"token": "x", "next": target})
        assert page.status_code == 401
        assert target not in page.text
        assert 'name="next" value="/"' in page.text


def test_lost_tokens_open_nothing(
    champion: Store, serve: Serve, call: Call, tmp_path: Path
) -> None:
    token = new(call, "anna")
    service = serve(champion)
    (tmp_path / "tokens/tokens.json").unlink()
    time.sleep(2)
    assert requests.get(f"{service.url}/v1/models").status_code == 503
    assert requests.get(f"{service.url}/v1/models", headers=bearer(token)).ok, "as known before"
    done = call("token", "new", "otto")
    assert done.code == 1
    assert "tokens.json does not exist, but" in done.err

    (tmp_path / "tokens").rename(tmp_path / "elsewhere")
    time.sleep(2)
    assert requests.get(f"{service.url}/v1/models").status_code == 503
    assert requests.get(f"{service.url}/v1/models", headers=bearer(token)).ok


def test_who_signs_in_at_the_sign_in_s_own_address_is_led_to_the_form(
    champion: Store, serve: Serve, call: Call
) -> None:
    token = new(call, "anna")
    service = serve(champion)
    page = requests.get(f"{service.url}/sign-in")
    assert page.status_code == 401
    assert 'name="next" value="/"' in page.text
    browser = requests.Session()
    assert browser.post(f"{service.url}/sign-in", data={"token": token, "next": "/"}).ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody")
def test_what_root_changes_stays_its_owner_s(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir(mode=0o700)
    os.chown(folder, 10001, 10001)
    new(call, "loans-app")
    call("token", "revoke", "loans-app")
    for name in ("key", "tokens.json"):
        assert (folder / name).stat().st_uid == 10001


def test_no_caller_is_refused_or_let_in_while_workers_start_anew(
    champion: Store, serve: Serve, call: Call
) -> None:
    token = new(call, "loans-app")
    service = serve(champion, workers=2)
    seen: Counter[tuple[bool, int]] = Counter()
    stop = threading.Event()

    def ask(head: dict[str, str]) -> None:
        while not stop.is_set():
            # A worker that ends closes a connection on which nothing has come yet.
            with contextlib.suppress(requests.ConnectionError):
                answer = requests.get(f"{service.url}/v1/models", headers=head, timeout=20)
                seen[bool(head), answer.status_code] += 1

    threads = [
        threading.Thread(target=ask, args=(head,)) for head in ({}, bearer(token)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for number in range(2, 5):
        service.process.send_signal(signal.SIGHUP)
        service.wait_for(lambda: service.loaded() >= 2 * number)  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {(False, 401), (True, 200)}
    assert min(seen.values()) > 50


def test_a_revoked_token_is_refused_within_five_seconds_by_every_worker(
    champion: Store, serve: Serve, call: Call
) -> None:
    token, other = new(call, "loans-app"), new(call, "anna")
    service = serve(champion, workers=2)
    address = f"{service.url}/v1/models"
    assert all(requests.get(address, headers=bearer(token)).ok for _ in range(20))
    call("token", "revoke", "loans-app")
    time.sleep(5)
    assert {requests.get(address, headers=bearer(token)).status_code for _ in range(20)} == {401}
    assert requests.get(address, headers=bearer(other)).ok
    call("token", "revoke", "anna")
    time.sleep(5)
    # Nobody is left, and still nobody else comes in.
    assert requests.get(address).status_code == 401
    late = new(call, "late")
    time.sleep(5)
    assert {requests.get(address, headers=bearer(late)).status_code for _ in range(20)} == {200}


def test_tokens_that_can_not_be_read_open_nothing(
    champion: Store, serve: Serve, call: Call, tmp_path: Path
) -> None:
    token = new(call, "loans-app")
    path = tmp_path / "tokens/tokens.json"
    content = path.read_bytes()
    path.write_text("{")
    service = serve(champion)
    address = f"{service.url}/v1/models"
    for head in ({}, bearer(token)):
        answer = requests.get(address, headers=head)
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the tokens can't be read; the log has the reason"
    assert "The tokens can't be read." in requests.get(service.url).text
    assert requests.get(f"{service.url}/healthz").status_code == 200
    assert "tokens can't be read" in service.log.read_text()
    path.write_bytes(content)
    service.wait_for(lambda: requests.get(address, headers=bearer(token)).ok, 5)
    path.write_text("{")  # those that are known stay
    time.sleep(3)
    assert requests.get(address, headers=bearer(token)).ok


def test_a_folder_that_comes_back_as_it_was_is_read_again(tmp_path: Path) -> None:
    """A volume may be missing for a moment."""
    folder, elsewhere = tmp_path / "tokens", tmp_path / "elsewhere"
    tokens = Tokens(folder)
    token = tokens.new("loans-app")
    sessions = Sessions(tmp_path / "ended-sessions")
    authenticator = Authenticator(tokens, sessions, on_loopback=False, check_seconds=0.0)

    def known_and_fault() -> tuple[bool, bool]:
        snapshot = authenticator.snapshot()
        return authenticator.by_token(token) is not None, snapshot.fault is not None

    assert known_and_fault() == (True, False)
    folder.rename(elsewhere)
    assert known_and_fault() == (True, True)
    elsewhere.rename(folder)
    assert known_and_fault() == (True, False)


def test_the_log_names_the_caller_and_never_a_token(
    champion: Store, serve: Serve, call: Call
) -> None:
    token = new(call, "loans-app")
    service = serve(champion)
    requests.get(f"{service.url}/v1/models", headers=bearer(token))
    requests.get(f"{service.url}/v1/models", headers=bearer("peerloan_wrong-one"))
    requests.post(f"{service.url}/sign-in", data={"token": token})
    service.wait_for(lambda: service.log.read_text().count('"message":"request"') >= 4)
    text = service.log.read_text()
    assert '"caller":"loans-app"' in text
    assert token not in text
    assert "wrong-one" not in text


# Gunicorn, which may be bound to anything


@pytest.fixture
def gunicorn(champion: Store, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(host: str) -> str:
        port = free_port()
        conf = "python:peerloan.service.gunicorn_conf"
        command = [sys.executable, "-m", "gunicorn", "-c", conf, "-w", "1", "-b", f"{host}:{port}"]
        environment = os.environ | settings(champion.root)
        process = subprocess.Popen(
            [*command, "peerloan.service.wsgi:application()"], env=environment
        )
        started.append(process)
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                requests.get(f"{url}/healthz", timeout=5)
            except requests.ConnectionError:
                time.sleep(0.1)
            else:
                return url
        pytest.fail("Gunicorn did not start")

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 200), ("0.0.0.0", 401)])
def test_gunicorn_tells_where_it_listens(
    gunicorn: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, host: str, status: int
) -> None:
    # Another service's word says nothing.
    monkeypatch.setenv("PEERLOAN_ON_LOOPBACK", "" if status == 200 else str(os.getpid()))
    url = gunicorn(host)
    assert requests.get(f"{url}/v1/models").status_code == status
    assert " 401 " in of_http_1_0(url, "/v1/models")
    assert requests.get(f"{url}/readyz").status_code == 200


def test_a_server_that_tells_nothing_is_taken_for_open_to_the_world(champion: Store) -> None:
    code = (
        "from peerloan.service.wsgi import application; "
        "client = application().test_client(); "
        "found = [client.get(path).status_code for path in ('/v1/models', '/healthz')]; "
        "print(f'\\n{found}')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | settings(champion.root),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "[401, 200]" in done.stdout


# Promotion over HTTP


@pytest.fixture
def operated(champion: Store, serve: Serve, call: Call) -> tuple[Service, dict[str, str]]:
    """A service, and the head of an operator's requests."""
    head = bearer(new(call, "anna@risk", "--operator"))
    return serve(champion), head


def test_an_operator_promotes_and_the_history_says_who_and_why(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    basic = version_of("basic")
    answer = requests.post(
        f"{service.url}/v1/models/{basic}/promote",
        json={"why": "the committee's decision of May"},
        headers=head,
    )
    assert answer.status_code == 200, answer.text
    assert (
        answer.json()
        == requests.get(f"{service.url}/v1/models", headers=head).json()["history"][-1]
    )
    state = champion.state()
    assert (state.champion, state.who, state.why, state.action) == (
        basic,
        "anna@risk",
        "the committee's decision of May",
        "promote",
    )
    service.wait_for(lambda: service.serving() == basic, 2)


def test_a_promotion_needs_no_body(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    address = f"{service.url}/v1/models/{version_of('basic')}/promote"
    assert requests.post(address, headers=head).status_code == 200
    again = requests.post(address, headers=head)
    assert again.status_code == 409
    assert "is already the champion" in again.json()["detail"]
    assert champion.state().number == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"why": 3}, "why"),
        ({"why": "x" * 1001}, "why"),
        ({"why": "bell\a"}, "why"),
        ({"breaking": "yes"}, "breaking"),
        ({"braking": True}, "braking"),
        (["why"], "(body)"),
        (None, "(body)"),
    ],
)
def test_a_wrong_promotion_is_refused_and_changes_nothing(
    operated: tuple[Service, dict[str, str]],
    champion: Store,
    version_of: VersionOf,
    body: Any,
    field: str,
) -> None:
    service, head = operated
    answer = requests.post(
        f"{service.url}/v1/models/{version_of('basic')}/promote",
        data=json.dumps(body),
        headers=head | {"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert champion.state().number == 1


def test_what_is_not_there_or_no_json_is_refused(
    operated: tuple[Service, dict[str, str]], version_of: VersionOf
) -> None:
    service, head = operated
    promote = f"{service.url}/v1/models/{version_of('basic')}/promote"
    assert requests.post(promote, data="why=x", headers=head).status_code == 415
    kind = head | {"Content-Type": "application/json"}
    assert requests.post(promote, data="{", headers=kind).status_code == 400
    missing = requests.post(f"{service.url}/v1/models/none-1/promote", headers=head)
    assert missing.status_code == 404
    assert "no version 'none-1'" in missing.json()["detail"]
    assert requests.get(promote, headers=head).status_code == 405


def test_a_version_that_was_changed_is_not_promoted(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    basic = version_of("basic")
    model = champion.folder(basic) / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    answer = requests.post(f"{service.url}/v1/models/{basic}/promote", headers=head)
    assert answer.status_code == 409
    assert "model.onnx" in answer.json()["detail"]
    assert champion.state().number == 1


def test_a_store_that_can_not_be_read_is_no_answer_about_versions(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    (champion.root / "aliases/000002.json").write_text("{")
    for path in ("", f"/{version_of('basic')}"):
        answer = requests.get(f"{service.url}/v1/models{path}", headers=head)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        assert str(champion.root) not in answer.text
    promote = f"{service.url}/v1/models/{version_of('basic')}/promote"
    assert requests.post(promote, headers=head).status_code == 503
    assert "000002.json can't be read" in service.log.read_text()


def test_parameters_of_a_promotion_are_refused(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    promote = f"{service.url}/v1/models/{version_of('basic')}/promote?breaking=true"
    assert requests.post(promote, headers=head).status_code == 400
    assert champion.state().number == 1


def test_of_two_promotions_at_once_one_is_told(
    operated: tuple[Service, dict[str, str]], champion: Store, version_of: VersionOf
) -> None:
    service, head = operated
    address = f"{service.url}/v1/models/{version_of('basic')}/promote"
    seen: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: seen.append(requests.post(address, headers=head).status_code)
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == [200, 409, 409, 409]
    assert champion.state().number == 2
