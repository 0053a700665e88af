"""The application without a champion, and the book that the first champion is trained on."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, Deployment, inspect, sh, wait_for

Fresh = Callable[[], tuple[str, Callable[[], str]]]


def test_without_a_champion_the_application_waits_and_is_healthy(checkout: Path) -> None:
    deployment = Deployment(checkout, "peerloan-test-waiting")
    deployment.compose("down", "--volumes")  # left by an interrupted run
    try:
        deployment.compose("up", "-d", "nginx", "ms_flask_app")
        wait_for("the applications", lambda: deployment.get("/healthz").ok)
        assert deployment.get("/healthz").json() == {"status": "ok"}
        answer = deployment.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "waiting for a champion")
        assert deployment.get("/").status_code == 401
        deployment.make_token()
        wait_for("the token", deployment.token_works)
        page = deployment.get("/").text
        assert "No model version is being served yet" in page
        assert "the first version is trained automatically within minutes" in page

        def healthy() -> bool:
            containers = deployment.containers("ms_flask_app")
            states = [inspect(container)["State"] for container in containers]
            return [state["Health"]["Status"] for state in states] == ["healthy", "healthy"]

        wait_for("health", healthy)
    finally:
        deployment.compose("down", "--volumes")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[[], tuple[str, Callable[[], str]]]]:
    """Start the model's container with an empty store; returns the container and its log."""
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
    # All candidates are trained: with fewer loans that takes less time.
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
