"""The proxy: TLS, limits, headers, logs, trusted proxies, and retries on another server."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from deploy.deployment import RELEASE, Deployment, copy_checkout, sh, wait_for
from deploy.proxy import ECHO, Proxy, context, entry

# Where the engine's networks get their addresses from.
DOCKER_NETWORKS = "172.16.0.0/12 192.168.0.0/16"


@pytest.fixture
def proxy(serving: Deployment) -> Iterator[Callable[..., Proxy]]:
    """Start an Nginx with these settings and wait for it; it is removed after the test."""
    started: list[Proxy] = []

    def start(certificates: Path | None = None, wait: bool = True, **settings: str) -> Proxy:
        started.append(Proxy(serving, certificates, **settings))
        if wait:
            wait_for("the proxy", lambda: started[-1].ask("/readyz").ok)
        return started[-1]

    yield start
    for nginx in started:
        sh("docker", "rm", "--force", nginx.container)


@pytest.fixture
def echoes(serving: Deployment) -> Iterator[Callable[..., str]]:
    """Start echoing applications; returns their network name."""
    started: list[str] = []

    def start(*breaks: str) -> str:
        for number, answer in enumerate(breaks):
            started.append(
                sh(
                    *("docker", "run", "--detach", "--network", f"{serving.name}_back"),
                    *("--label", "peerloan-test-echo"),
                    *("--network-alias", "echo", "-e", f"WHO={number}", "-e", f"BREAKS={answer}"),
                    *("--entrypoint", "python", f"peerloan/ms_flask_app:{RELEASE}", "-c", ECHO),
                ).strip()
            )
        return "echo"

    yield start
    for container in started:
        sh("docker", "rm", "--force", container)


def test_the_configuration_is_valid_and_warns_of_nothing(serving: Deployment) -> None:
    container = serving.containers("nginx")[0]
    done = subprocess.run(
        ["docker", "exec", container, "nginx", "-t"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "warn" not in done.stderr
    assert "test is successful" in done.stderr


# TLS


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_and_http_2_are_spoken(serving: Deployment, version: ssl.TLSVersion) -> None:
    client = context(minimum_version=version, maximum_version=version)
    client.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", serving.https)) as raw,
        client.wrap_socket(raw) as secured,
    ):
        assert secured.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        assert secured.selected_alpn_protocol() == "h2"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_older_tls_is_refused(serving: Deployment) -> None:
    client = context(minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", serving.https)) as raw,
        pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|NO_PROTOCOLS"),
    ):
        client.wrap_socket(raw)


def test_plain_http_is_redirected_with_its_method_but_for_health(serving: Deployment) -> None:
    plain = f"http://localhost:{serving.http}"
    for method in ("GET", "POST"):
        answer = requests.request(method, f"{plain}/v1/x?a=b", allow_redirects=False, timeout=30)
        assert answer.status_code == 308
        assert answer.headers["Location"] == f"https://localhost:{serving.https}/v1/x?a=b"
        assert "Strict-Transport-Security" not in answer.headers
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
        assert requests.get(plain + path, allow_redirects=False, timeout=30).ok


def test_only_a_mounted_certificate_is_promised_to_stay(
    serving: Deployment, proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    assert "Strict-Transport-Security" not in serving.get("/").headers
    folder = tmp_path / "certificates"
    folder.mkdir()
    sh(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=risk.test"),
        *("-days", "2", "-keyout", folder / "tls.key", "-out", folder / "tls.crt"),
    )
    (folder / "tls.key").chmod(0o644)
    nginx = proxy(folder)
    assert nginx.ask("/").headers["Strict-Transport-Security"] == "max-age=31536000"
    assert "Strict-Transport-Security" not in nginx.ask("/", plain=True).headers
    local = requests.get(f"http://localhost:{nginx.local}/", timeout=30)
    assert "Strict-Transport-Security" not in local.headers
    certificate = ssl.get_server_certificate(("127.0.0.1", nginx.https))
    assert certificate.strip() == (folder / "tls.crt").read_text("ascii").strip()


def test_a_certificate_without_a_readable_key_is_named(
    proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    (tmp_path / "tls.crt").write_text("not yet")
    tmp_path.chmod(0o755)
    nginx = proxy(tmp_path, wait=False)
    wait_for("its end", lambda: "/certificates/tls.key can't be read" in nginx.errors())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PEERLOAN_RATE", "many"),
        ("PEERLOAN_RATE", "0"),
        ("PEERLOAN_PROXY_PROTOCOL", "yes"),
        ("PEERLOAN_TRUSTED_PROXIES", "balancer; deny all"),
        ("PEERLOAN_PREFIX", "/risk; deny all"),
    ],
)
def test_a_wrong_setting_is_named(proxy: Callable[..., Proxy], name: str, value: str) -> None:
    nginx = proxy(wait=False, **{name: value})
    wait_for("its end", lambda: f"nginx: {name}: expected" in nginx.errors())
    assert f"given '{value}'" in nginx.errors()


# Limits


def test_too_large_a_body_is_refused_as_the_application_would(serving: Deployment) -> None:
    body = b"x" * 5_000_001
    answer = serving.post("/v1/predictions", data=body, headers={"Accept": "application/json"})
    assert answer.status_code == answer.json()["status"] == 413
    assert answer.headers["Content-Type"] == "application/problem+json"
    infer = serving.post("/v2/models/late-payments/infer", data=body)
    assert infer.status_code == 413
    assert infer.headers["Content-Type"] == "application/json"
    assert infer.json() == {"error": "expected at most 5,000,000 bytes"}
    page = serving.post("/", data=body, headers={"Accept": "text/html"})
    assert page.status_code == 413
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<h1>Too Large</h1>" in page.text


def test_the_largest_body_reaches_the_application(serving: Deployment) -> None:
    answer = serving.post(
        "/v1/predictions", data=b" " * 5_000_000, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert "given nothing" in answer.json()["detail"] or "JSON" in answer.json()["detail"]


def test_who_asks_too_often_is_told_when_to_ask_again(proxy: Callable[..., Proxy]) -> None:
    nginx = proxy(PEERLOAN_RATE="5")
    answers = [nginx.ask("/healthz") for _ in range(40)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert answers[0].ok
    assert refused[0].headers["Retry-After"] == "1"
    assert refused[0].json()["title"] == "Too Many Requests"
    time.sleep(1)
    assert nginx.ask("/healthz").ok


def test_a_request_that_stops_half_way_is_ended(serving: Deployment) -> None:
    with (
        socket.create_connection(("127.0.0.1", serving.https), timeout=30) as raw,
        context().wrap_socket(raw) as secured,
    ):
        secured.sendall(b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Le")
        assert secured.recv(1000) == b"", "closed"


# Headers, compression and logs


def test_answers_are_compressed_and_files_are_kept(serving: Deployment) -> None:
    page = serving.get("/")
    link = page.text.split('rel="stylesheet" href="')[1].split('"')[0]
    for _ in range(2):
        answer = serving.get(link)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    line = entry(serving, serving.containers("nginx")[0], link.split("?")[0])
    assert line["upstream"] == "", "the second was answered from what the first left"


def test_who_holds_too_many_connections_is_refused(proxy: Callable[..., Proxy]) -> None:
    nginx = proxy()
    started = b"POST /v1/predictions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    connections = []
    for _ in range(200):
        raw = socket.create_connection(("127.0.0.1", nginx.https), timeout=30)
        secured = context().wrap_socket(raw)
        secured.sendall(started)
        connections.append(secured)
    wait_for("its patience's end", lambda: nginx.ask("/healthz").status_code == 429)
    for secured in connections:
        secured.close()
    wait_for("an answer", lambda: nginx.ask("/healthz").ok)


def test_a_path_prefix_leads_to_the_same_locations(proxy: Callable[..., Proxy]) -> None:
    nginx = proxy(PEERLOAN_PREFIX="/risk.it")
    for before in ("", "/risk.it"):
        assert nginx.ask(f"{before}/readyz").ok
        assert "nginx" in nginx.ask(f"{before}/metrics").text, "refused by the proxy itself"
    assert nginx.ask("/risk-it/readyz").status_code != 200


def test_figures_are_not_public(serving: Deployment) -> None:
    for path in ("/metrics", "/metrics/x"):
        assert serving.get(path).status_code == 404


def test_each_request_has_an_id_which_is_the_caller_s_if_it_is_one(
    proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    nginx = proxy(PEERLOAN_APP=echoes("no"))
    generated = nginx.ask("/x")
    assert len(generated.headers["X-Request-Id"]) == 32
    assert generated.json()["headers"]["X-Request-Id"] == generated.headers["X-Request-Id"]
    named = nginx.ask("/x", headers={"X-Request-Id": "order-4711.a_b"})
    assert named.headers["X-Request-Id"] == "order-4711.a_b"
    assert named.json()["headers"]["X-Request-Id"] == "order-4711.a_b"
    strange = nginx.ask("/x", headers={"X-Request-Id": 'a" b\\'})
    assert len(strange.headers["X-Request-Id"]) == 32


def test_a_post_carries_an_idempotency_key_and_traces_pass(
    proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    nginx = proxy(PEERLOAN_APP=echoes("no"))
    added = nginx.ask("/v1/predictions", json={}).json()["headers"]
    assert len(added["Idempotency-Key"]) == 32
    chain = {"X-Request-Id": "one-workflow"}
    keys = [
        nginx.ask("/v1/predictions", json={}, headers=chain).json()["headers"]["Idempotency-Key"]
        for _ in range(2)
    ]
    assert keys[0] != keys[1], "two requests, even of one id"
    named = nginx.ask("/v1/predictions", json={}, headers={"Idempotency-Key": "mine"})
    assert named.json()["headers"]["Idempotency-Key"] == "mine"
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    asked = nginx.ask("/x", headers=trace).json()["headers"]
    assert asked["traceparent"] == trace["traceparent"]
    assert "Idempotency-Key" not in asked


def test_the_log_is_json_and_holds_no_query(serving: Deployment) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    head = {"X-Request-Id": "look-for-me", "traceparent": trace}
    answer = serving.get("/v1/secret-path?annual_inc=20000", headers=head)
    assert answer.status_code == 404
    assert answer.headers["traceparent"] == trace
    line = entry(serving, serving.containers("nginx")[0], "/v1/secret-path")
    assert line["request_id"] == "look-for-me"
    assert line["traceparent"] == trace
    assert line["status"] == 404
    assert line["method"] == "GET"
    assert line["tls"] == "TLSv1.3"
    assert line["seconds"] >= 0
    assert "annual_inc" not in json.dumps(line)
    no_ascii = "caf\xe9".encode("latin-1")
    bytes_ = serving.get("/v1/\xfcber", headers={"User-Agent": no_ascii, "traceparent": no_ascii})
    assert bytes_.status_code == 404
    last = serving.log(serving.containers("nginx")[0])[-1]
    assert (last["agent"], last["traceparent"]) == ("(not ASCII)", "")


# Trusted proxies


def test_a_forwarded_address_is_believed_of_a_trusted_proxy_alone(
    serving: Deployment, proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    app = echoes("no")
    trusting = proxy(PEERLOAN_APP=app, PEERLOAN_TRUSTED_PROXIES=DOCKER_NETWORKS)
    headers = trusting.ask("/x", headers=forwarded).json()["headers"]
    assert headers["X-Forwarded-For"] == "203.0.113.9", "the last that a trusted proxy saw"
    assert entry(serving, trusting.container, "/x")["client"] == "203.0.113.9"

    doubting = proxy(PEERLOAN_APP=app, PEERLOAN_TRUSTED_PROXIES="192.0.2.1")
    headers = doubting.ask("/x", headers=forwarded).json()["headers"]
    assert headers["X-Forwarded-For"] == doubting.peer
    assert entry(serving, doubting.container, "/x")["client"] == doubting.peer


def test_tls_may_end_at_a_trusted_balancer(
    proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    app, forwarded = echoes("no"), {"X-Forwarded-Proto": "https"}
    trusting = proxy(PEERLOAN_APP=app, PEERLOAN_TRUSTED_PROXIES=DOCKER_NETWORKS)
    answer = trusting.ask("/x", plain=True, headers=forwarded)
    assert answer.status_code == 200
    assert answer.json()["headers"]["X-Forwarded-Proto"] == "https"
    assert trusting.ask("/x", plain=True).status_code == 308

    doubting = proxy(PEERLOAN_APP=app)
    assert doubting.ask("/x", plain=True, headers=forwarded).status_code == 308


@pytest.mark.parametrize("trusted", [True, False])
def test_the_proxy_protocol_tells_the_client_s_address(
    serving: Deployment, proxy: Callable[..., Proxy], echoes: Callable[..., str], trusted: bool
) -> None:
    nginx = proxy(
        wait=False,
        PEERLOAN_APP=echoes("no"),
        PEERLOAN_PROXY_PROTOCOL="on",
        PEERLOAN_TRUSTED_PROXIES=DOCKER_NETWORKS if trusted else "",
    )

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", nginx.https), timeout=30) as raw:
            raw.sendall(b"PROXY TCP4 203.0.113.9 192.0.2.1 40000 443\r\n")
            with context().wrap_socket(raw) as secured:
                secured.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return b"".join(iter(lambda: secured.recv(65536), b""))

    wait_for("an answer", lambda: b"200 OK" in ask())
    client = entry(serving, nginx.container, "/x")["client"]
    assert client == ("203.0.113.9" if trusted else nginx.peer)
    # No balancer stands before what is published for the machine itself.
    local = requests.get(f"http://localhost:{nginx.local}/x", timeout=30, allow_redirects=False)
    assert local.json()["headers"]["X-Forwarded-For"] == nginx.peer
    assert local.json()["headers"]["X-Forwarded-Proto"] == "http"


# Retries on another server


@pytest.mark.parametrize("path", ["/v1/predictions", "/v2/models/m/versions/1/infer"])
def test_a_prediction_that_one_server_breaks_off_is_asked_of_the_next(
    serving: Deployment, proxy: Callable[..., Proxy], echoes: Callable[..., str], path: str
) -> None:
    nginx = proxy(PEERLOAN_APP=echoes("yes", "no"))
    wait_for(
        "both servers", lambda: {nginx.ask("/x").json()["who"] for _ in range(8)} == {"0", "1"}
    )
    answers = [nginx.ask(path, json={}) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["who"] for answer in answers} == {"1"}
    lines = [x for x in serving.log(nginx.container) if x["path"] == path]
    repeated = [line for line in lines if "," in line["upstream"]]
    assert repeated, "one of them went to the server that breaks off"
    keys = {answer.json()["headers"]["Idempotency-Key"] for answer in answers}
    assert len(keys) == 8, "each request has its own"
    assert len(broken_off()) == len(repeated)
    assert set(broken_off()) <= keys, "and both servers saw the same"


def broken_off() -> list[str]:
    """The idempotency keys of the requests that the echoing applications broke off."""
    keys = []
    for container in sh("docker", "ps", "-q", "--filter", "label=peerloan-test-echo").split():
        log = sh("docker", "logs", container)
        keys += [line.split(": ")[1] for line in log.splitlines() if line.startswith("broke off")]
    return keys


def test_another_post_is_not_repeated(
    serving: Deployment, proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    nginx = proxy(PEERLOAN_APP=echoes("yes", "yes"))
    answer = nginx.ask("/v1/other", json={}, headers={"Accept": "application/json"})
    assert answer.status_code == answer.json()["status"] == 502
    assert answer.json()["title"] == "Unavailable"
    assert answer.headers["Retry-After"] == "2"
    assert len(broken_off()) == 1
    assert entry(serving, nginx.container, "/v1/other")["method"] == "POST"


def test_a_request_that_every_server_breaks_off_costs_the_others_nothing(
    proxy: Callable[..., Proxy], echoes: Callable[..., str]
) -> None:
    nginx = proxy(PEERLOAN_APP=echoes("yes", "yes", "yes", "yes"))
    for _ in range(5):
        assert nginx.ask("/v1/predictions", json={}).status_code == 502
        assert [nginx.ask("/x").status_code for _ in range(8)] == [200] * 8
    assert len(broken_off()) == 5 * 4, "each was asked"


@pytest.mark.parametrize("path", ["/v1/predictions", "/v1/nothing", "/"])
def test_a_large_body_that_is_refused_unread_costs_the_others_nothing(
    serving: Deployment, path: str
) -> None:
    for _ in range(10):
        answer = serving.post(path, data=b"x" * 4_900_000, headers={"Content-Type": "text/x"})
        assert answer.status_code in (404, 415, 422)
        assert serving.get("/healthz").ok


def test_a_reload_that_fails_is_tried_until_it_is_valid(
    serving: Deployment, checkout: Path, tmp_path: Path, echoes: Callable[..., str]
) -> None:
    deployment = Deployment(copy_checkout(tmp_path / "peerloan"), serving.name)
    conf = deployment.folder / "deploy/nginx/nginx.conf"
    good = conf.read_text("utf-8")
    proxy = Proxy(deployment, None, PEERLOAN_APP="echo")
    try:
        wait_for("an answer", lambda: proxy.ask("/x").status_code == 502)
        conf.write_text(good + "nonsense;\n", "utf-8")
        echoes("no")
        wait_for("a complaint", lambda: "can't reload, and goes on as it is" in proxy.errors())
        assert proxy.ask("/x").status_code == 502, "it goes on"
        conf.write_text(good, "utf-8")
        wait_for("the application", lambda: proxy.ask("/x").ok)
        assert proxy.errors().count("can't reload") == 1
    finally:
        sh("docker", "rm", "--force", proxy.container)


def test_without_an_application_it_says_so(proxy: Callable[..., Proxy]) -> None:
    nginx = proxy(wait=False, PEERLOAN_APP="nobody")
    wait_for("an answer", lambda: nginx.ask("/").status_code == 502)
    assert nginx.ask("/", headers={"Accept": "text/html"}).text.count("<h1>Unavailable</h1>") == 1
