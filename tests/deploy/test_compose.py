"""One machine: what `docker-compose up` brings, with which rights, and what a restart does."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.deployment import RELEASE, Deployment, inspect, sh, wait_for

Fresh = Callable[[], tuple[str, Callable[[], str]]]
SERVICES = ("nginx", "ms_flask_app", "ms_model", "ms_monitor", "ledger")


def versions(here: Deployment) -> list[str]:
    """The versions in the store, by the model's container."""
    listed = here.compose("exec", "-T", "ms_model", "peerloan", "models", "list", "--json")
    return [version["version"] for version in json.loads(listed)["versions"]]


def test_without_a_champion_the_application_waits_and_is_healthy(checkout: Path) -> None:
    here = Deployment(checkout, "peerloan-test-waiting")
    here.compose("down", "--volumes")  # of a run that was cut off
    try:
        here.compose("up", "-d", "nginx", "ms_flask_app")
        wait_for("the applications", lambda: here.get("/healthz").ok)
        assert here.get("/healthz").json() == {"status": "ok"}
        answer = here.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "waiting for a champion")
        assert here.get("/").status_code == 401
        here.make_token()
        wait_for("the token", here.let_in)
        page = here.get("/").text
        assert "No model version is being served yet" in page
        assert "the first version is trained automatically within minutes" in page

        def healthy() -> bool:
            found = [inspect(each)["State"] for each in here.containers("ms_flask_app")]
            return [state["Health"]["Status"] for state in found] == ["healthy", "healthy"]

        wait_for("health", healthy)
    finally:
        here.compose("down", "--volumes")


def test_the_first_champion_is_trained_on_the_sample_and_the_page_answers(
    serving: Deployment, loan: dict[str, Any]
) -> None:
    page = serving.get("/")
    assert page.status_code == 200
    assert "trained on the built-in sample" in page.text
    answer = serving.post("/v1/predictions", json=loan).json()
    assert answer["model"]["version"] == serving.serving()
    assert len(serving.containers("ms_flask_app")) == 2


def test_a_restart_neither_trains_nor_publishes(serving: Deployment) -> None:
    before, champion = versions(serving), serving.serving()
    serving.compose("restart", "ms_model")
    container = serving.containers("ms_model")[0]

    def log() -> str:
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
        return done.stderr

    wait_for("it waits again", lambda: log().count("waiting; train anew") == 2)
    assert log().count("nothing to do") == 1
    assert versions(serving) == before
    assert serving.serving() == champion


def test_stopping_the_model_takes_no_longer_than_it_must(serving: Deployment) -> None:
    container = serving.containers("ms_model")[0]
    serving.compose("stop", "ms_model")
    state = inspect(container)["State"]
    assert state["ExitCode"] == 128 + 15, "it heard the signal, and was not killed"
    serving.compose("up", "-d", "ms_model")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], tuple[str, Callable[[], str]]]]:
    """Start the model's container with these books and a store of its own; gives it and its log."""
    books = tmp_path / "books"
    books.mkdir()
    started: list[str] = []

    def start() -> tuple[str, Callable[[], str]]:
        container = sh(
            *("docker", "run", "--detach", "--read-only", "--cap-drop", "ALL"),
            *("--network", "none", "--tmpfs", "/tmp", "--volume", f"{books}:/books:ro"),
            *("--volume", "/store/versions", "--volume", "/store/aliases"),
            f"peerloan/ms_model:{RELEASE}",
        ).strip()
        started.append(container)

        def log() -> str:
            done = subprocess.run(["docker", "logs", container], capture_output=True, text=True)
            return done.stderr

        return container, log

    yield start
    for container in started:
        sh("docker", "rm", "--force", "--volumes", container)


def test_a_first_champion_is_trained_on_a_book_that_is_mounted(
    checkout: Path, sample_book: Path, tmp_path: Path, fresh: Fresh
) -> None:
    (tmp_path / "books/first").mkdir()
    # All candidates are trained: with fewer loans that is sooner done.
    lines = sample_book.read_text("utf-8").splitlines(keepends=True)[:2001]
    (tmp_path / "books/first/part.csv").write_text("".join(lines), "utf-8")
    (tmp_path / "books/first-notes.md").write_text("not a book")
    container, log = fresh()
    wait_for("it waits", lambda: "waiting; train anew" in log(), 240)
    listed = json.loads(sh("docker", "exec", container, "peerloan", "models", "list", "--json"))
    assert listed["history"][0]["why"] == "the first, trained on first"
    assert len(listed["versions"]) == 5


def test_two_first_books_are_one_too_many(
    checkout: Path, sample_book: Path, tmp_path: Path, fresh: Fresh
) -> None:
    for name in ("first.csv", "first.parquet"):
        shutil.copy(sample_book, tmp_path / "books" / name)
    _, log = fresh()
    wait_for("a refusal", lambda: "expected one first book, given: " in log())


def test_books_that_can_not_be_read_are_not_taken_for_none(
    checkout: Path, tmp_path: Path, fresh: Fresh
) -> None:
    (tmp_path / "books").chmod(0o700)
    _, log = fresh()
    wait_for("a refusal", lambda: "/books can't be read by user 10001" in log())


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_more_rights_than_it_needs(serving: Deployment, service: str) -> None:
    for container in serving.containers(service):
        host = inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"]
        assert host["CapDrop"] == ["ALL"]
        assert not host["CapAdd"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "5"}
        status = sh("docker", "exec", container, "cat", "/proc/1/status")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in facts["Uid"].split(), "no root"
        assert int(facts["CapEff"], 16) == int(facts["CapBnd"], 16) == 0
        assert facts["NoNewPrivs"] == "1"


@pytest.mark.parametrize(
    ("service", "place", "writable"),
    [
        ("nginx", "/etc/nginx", False),
        ("nginx", "/var", False),
        ("ms_flask_app", "/opt/peerloan", False),
        ("ms_flask_app", "/store/versions", False),
        ("ms_flask_app", "/store/aliases", True),
        ("ms_flask_app", "/tokens", False),
        ("ms_model", "/books", False),
        ("ms_model", "/store/versions", True),
        ("ms_model", "/store/aliases", True),
        ("ms_model", "/tokens", True),
        ("ms_flask_app", "/seal", True),
        ("ms_model", "/seal", True),
        ("ms_monitor", "/store/versions", True),
        ("ms_monitor", "/store/aliases", True),
        ("ms_monitor", "/rules", False),
        ("ms_monitor", "/books", False),
        ("ms_monitor", "/seal", False),
        ("ms_monitor", "/run/secrets", False),
        ("ledger", "/var/lib/postgresql/data", True),
        ("ledger", "/var/lib/postgresql", False),
        ("ledger", "/etc/ledger", False),
        ("ledger", "/run/secrets", False),
    ],
)
def test_where_a_container_may_write(
    serving: Deployment, service: str, place: str, writable: bool
) -> None:
    container = serving.containers(service)[0]
    command = f"touch {place}/.try && rm {place}/.try"
    done = subprocess.run(["docker", "exec", container, "sh", "-c", command], capture_output=True)
    assert (done.returncode == 0) == writable, done.stderr


@pytest.mark.parametrize("service", ["ms_flask_app", "ms_model", "ledger"])
def test_the_project_s_containers_reach_nobody_outside(serving: Deployment, service: str) -> None:
    for container in serving.containers(service):
        for name in inspect(container)["NetworkSettings"]["Networks"]:
            network = json.loads(sh("docker", "network", "inspect", name))[0]
            assert network["Internal"] or network["Driver"] == "null", name


def test_the_monitor_alone_reaches_a_webhook_outside(serving: Deployment) -> None:
    (container,) = serving.containers("ms_monitor")
    leading_out = []
    for name in inspect(container)["NetworkSettings"]["Networks"]:
        network = json.loads(sh("docker", "network", "inspect", name))[0]
        if not network["Internal"]:
            leading_out.append(name)
            assert len(network["Containers"]) == 1, "nobody else is here"
    assert leading_out == [f"{serving.name}_monitor"]
    assert not inspect(container)["HostConfig"]["PortBindings"]


REACH = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"


@pytest.mark.parametrize(
    ("service", "other", "port", "reached"),
    [
        ("ms_flask_app", "ledger", 5432, True),
        ("ms_model", "ledger", 5432, True),
        ("ms_model", "ms_flask_app", 5000, False),
        ("ms_model", "nginx", 8443, False),
        ("ms_monitor", "ledger", 5432, True),
        ("ms_monitor", "ms_flask_app", 5000, False),
        ("ms_flask_app", "ms_monitor", 9464, False),
    ],
)
def test_who_reaches_whom(
    serving: Deployment, service: str, other: str, port: int, reached: bool
) -> None:
    container = serving.containers(service)[0]
    networks = inspect(serving.containers(other)[0])["NetworkSettings"]["Networks"]
    # By address, since a name is known only where two share a network.
    for address in [network["IPAddress"] for network in networks.values()]:
        command = ["docker", "exec", container, "python", "-c", REACH, address, str(port)]
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode == 0:
            assert reached, address
            return
    assert not reached


def test_the_proxy_does_not_reach_the_database(serving: Deployment) -> None:
    container = serving.containers("nginx")[0]
    for network in inspect(serving.containers("ledger")[0])["NetworkSettings"]["Networks"].values():
        ask = ["docker", "exec", container, "curl", "--silent", "--max-time", "2"]
        address = f"telnet://{network['IPAddress']}:5432"
        assert subprocess.run([*ask, address], capture_output=True, check=False).returncode != 0


def test_without_a_token_only_health_is_answered(serving: Deployment, loan: dict[str, Any]) -> None:
    nobody = {"Authorization": ""}
    for path in ("/healthz", "/readyz"):
        assert serving.get(path, headers=nobody).ok
    for path in ("/", "/v1/models", "/openapi.json"):
        assert serving.get(path, headers=nobody).status_code == 401
    answer = serving.post("/v1/predictions", json=loan, headers=nobody)
    assert (answer.status_code, answer.json()["title"]) == (401, "Unauthorized")


def test_a_token_is_revoked_in_every_container(serving: Deployment) -> None:
    run = ("run", "--rm", "-T", "ms_model", "token")
    head = {"Authorization": f"Bearer {serving.compose(*run, 'new', 'gone').strip()}"}

    def seen() -> set[int]:
        return {serving.get("/v1/models", headers=head).status_code for _ in range(20)}

    wait_for("the token", lambda: seen() == {200}, 5)
    serving.compose(*run, "revoke", "gone")
    wait_for("its end", lambda: seen() == {401}, 5)


def test_a_redeployment_is_one_command(
    serving: Deployment, sample_book: Path, loan: dict[str, Any]
) -> None:
    (serving.folder / "books" / "q3.csv").write_text(sample_book.read_text("utf-8"), "utf-8")
    before = serving.serving()
    serving.compose("run", "--rm", "ms_model", "train", "/books/q3.csv", "--promote")
    wait_for("the new champion", lambda: serving.settled() and serving.serving() != before)
    answer = serving.post("/v1/predictions", json=loan).json()
    assert answer["model"]["version"] in versions(serving)
    serving.compose("run", "--rm", "ms_model", "models", "rollback", "--why", "the test is over")
    wait_for("the champion before", lambda: serving.settled(before))


def test_the_model_s_container_replays_and_records(
    serving: Deployment, sample_book: Path, loan: dict[str, Any]
) -> None:
    answer = serving.post("/v1/predictions", json=loan).json()
    run = ("run", "--rm", "-T", "ms_model")
    told = json.loads(serving.compose(*run, "replay", "--id", answer["id"], "--json"))
    assert (told["decisions"], told["identical"]) == (1, 1)
    (serving.folder / "books" / "score.csv").write_text(sample_book.read_text("utf-8"), "utf-8")
    before = int(serving.sql("SELECT count(*) FROM decisions WHERE source = 'book'")[0])
    serving.compose(*run, "score", "/books/score.csv", "-o", "/tmp/scored.csv", "--record")
    after = int(serving.sql("SELECT count(*) FROM decisions WHERE source = 'book'")[0])
    assert after - before == 6_000


def test_without_the_database_no_decision_is_answered_and_nothing_else_stops(
    serving: Deployment, loan: dict[str, Any]
) -> None:
    serving.compose("stop", "ledger")
    answer = serving.post("/v1/predictions", json=loan)
    assert (answer.status_code, answer.json()["title"]) == (503, "Ledger Unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    assert serving.post("/v1/predictions?what_if=true", json=loan).ok
    # Nor does an application that starts meanwhile.
    container = serving.containers("ms_flask_app")[0]
    sh("docker", "restart", container)
    wait_for("health", lambda: inspect(container)["State"]["Health"]["Status"] == "healthy")
    wait_for("readiness", serving.settled)
    assert serving.get("/readyz").ok
    serving.compose("start", "ledger")

    def kept() -> bool:
        return all(serving.post("/v1/predictions", json=loan).ok for _ in range(20))

    wait_for("answers", kept)
    assert {serving.get("/readyz").json()["ledger"] for _ in range(20)} == {"available"}
