"""Replaces every part of the deployment under a steady load; no request may fail."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.deployment import RELEASE, Deployment, inspect, sh, wait_for
from deploy.ledger_check import LedgerCheck
from deploy.releases import BROKEN
from helpers.steady_load import Load, Tally
from peerloan.database import tables as schema
from peerloan.loan import default_definition

# The migrations of this release; the next one has one more.
MIGRATIONS_BEFORE = [str(number) for number in range(1, schema.NEWEST_MIGRATION + 1)]


# Pause of each of the eight clients between two requests: about 100 requests a second. That is
# enough, since every moment of a step has requests, and leaves the processors to what is tested.
PAUSE_SECONDS = 0.05


@dataclass
class LoadRecord:
    """A load that lasts for all tests: what clients saw in every step, and the ledger."""

    load: Load = field(repr=False)
    ledger: LedgerCheck
    steps: list[tuple[str, Tally]] = field(default_factory=list, repr=False)

    def end_step(self, name: str) -> Tally:
        """End a step and return what clients saw in it. Any failed request fails the test."""
        tally = self.load.take()
        self.ledger.add(tally)
        self.steps.append((name, tally))
        assert tally.requests > 100, "there was a load"
        assert tally.faults == []
        return tally

    def table(self) -> str:
        """The steps as a table for people."""
        rows = [("under load", "requests", "failed", "repeated", "longest wait", "versions")]
        for name, tally in self.steps:
            counts = (f"{tally.requests:,}", str(tally.failed), str(tally.repeated))
            versions = " ".join(sorted(tally.versions))
            rows.append((name, *counts, f"{tally.longest:.2f} s", versions))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            for row in rows
        ]
        return "\n".join([*lines, str(self.ledger)])


@pytest.fixture(scope="module")
def record(serving: Deployment, sample_book: Path) -> Iterator[LoadRecord]:
    """A load on the shared deployment. Every test is one step of it."""
    (serving.folder / "books" / "next.csv").write_text(sample_book.read_text("utf-8"), "utf-8")
    loan = {field.name: field.default for field in default_definition().fields}
    ledger = LedgerCheck()
    with Load(serving.https, loan, pause=PAUSE_SECONDS, token=serving.token) as load:
        time.sleep(1)
        ledger.add(load.take())
        yield LoadRecord(load, ledger)


def on(deployment: Deployment, service: str, *command: str) -> str:
    """Run a command in a service's container."""
    return deployment.compose("exec", "-T", service, *command)


def images(deployment: Deployment) -> set[str]:
    """The images of the application's containers."""
    ask = ("docker", "inspect", "-f", "{{.Config.Image}}")
    return {sh(*ask, container).strip() for container in deployment.containers("ms_flask_app")}


def update(deployment: Deployment, release: str) -> subprocess.CompletedProcess[str]:
    """Replace the application's containers as an operator does."""
    return subprocess.run(
        ["sh", "deploy/update.sh"],
        cwd=deployment.folder,
        env=os.environ | deployment.settings | {"PEERLOAN_RELEASE": release},
        capture_output=True,
        text=True,
        check=False,
    )


def test_at_rest(record: LoadRecord) -> None:
    time.sleep(5)
    assert len(record.end_step("at rest").versions) == 1


def test_a_model_is_trained_and_promoted(serving: Deployment, record: LoadRecord) -> None:
    before = serving.serving()
    on(serving, "ms_model", *["peerloan", "train", "/books/next.csv", "--quick", "--promote"])
    wait_for("the new champion", lambda: serving.settled() and serving.serving() != before)
    time.sleep(1)
    tally = record.end_step("a model is trained and promoted")
    assert set(tally.versions) == {before, serving.serving()}


def test_it_is_rolled_back(serving: Deployment, record: LoadRecord) -> None:
    before = serving.serving()
    on(serving, "ms_model", "peerloan", "models", "rollback")
    wait_for("the champion before", lambda: serving.settled() and serving.serving() != before)
    time.sleep(1)
    assert len(record.end_step("it is rolled back").versions) == 2


@pytest.mark.parametrize("count", [4, 2])
def test_the_application_is_scaled(serving: Deployment, record: LoadRecord, count: int) -> None:
    serving.compose("up", "-d", "--no-recreate", PEERLOAN_APPS=str(count))
    nginx = serving.containers("nginx")[0]

    def balanced() -> bool:
        servers = sh("docker", "exec", nginx, "cat", "/tmp/peerloan/servers.conf")
        return servers.count("server ") == count

    wait_for("Nginx knows", balanced)
    time.sleep(2)
    record.end_step(f"the application is scaled to {count}")


def is_healthy(container: str) -> bool:
    """Whether the engine reports a container as healthy."""
    return bool(inspect(container)["State"]["Health"]["Status"] == "healthy")


def tables(deployment: Deployment) -> list[str]:
    """The migrations that were applied to the ledger."""
    return deployment.sql("SELECT number FROM migrations ORDER BY number")


def test_a_release_whose_migration_fails_is_not_taken(
    serving: Deployment, record: LoadRecord, next_images: dict[str, str]
) -> None:
    before = serving.containers("ms_flask_app")
    done = update(serving, next_images["fails"])
    assert done.returncode == 1
    assert "the ledger was not upgraded; the old ones stay" in done.stderr
    assert serving.containers("ms_flask_app") == before
    assert tables(serving) == MIGRATIONS_BEFORE
    record.end_step("a release whose migration fails is refused")


def test_the_image_is_replaced_container_by_container(
    serving: Deployment, record: LoadRecord, next_images: dict[str, str]
) -> None:
    release = next_images["admits the release before"]
    done = update(serving, release)
    assert done.returncode == 0, done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{release}"}
    assert tables(serving) == [*MIGRATIONS_BEFORE, str(schema.NEWEST_MIGRATION + 1)]
    time.sleep(1)
    record.end_step("image and tables are replaced by the next release's")


def test_the_release_before_is_brought_back_and_restarts_on_the_new_tables(
    serving: Deployment, record: LoadRecord
) -> None:
    done = update(serving, RELEASE)
    assert done.returncode == 0, done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{RELEASE}"}
    container = serving.containers("ms_flask_app")[0]
    sh("docker", "restart", container)
    wait_for("it is back", lambda: is_healthy(container))
    assert tables(serving) == [*MIGRATIONS_BEFORE, str(schema.NEWEST_MIGRATION + 1)]
    record.end_step("the release before is brought back, and restarts")


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_is_not_taken(
    serving: Deployment, record: LoadRecord, broken_images: dict[str, str], what: str
) -> None:
    done = update(serving, broken_images[what])
    assert done.returncode == 1
    assert "the old ones stay" in done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{RELEASE}"}
    assert len(serving.containers("ms_flask_app")) == 2
    record.end_step(f"an image that {what} is refused")


def test_a_container_is_killed(serving: Deployment, record: LoadRecord) -> None:
    container = serving.containers("ms_flask_app")[0]
    sh("docker", "kill", "--signal", "KILL", container)
    time.sleep(4)
    sh("docker", "start", container)
    wait_for("both are back", lambda: len(serving.containers("ms_flask_app")) == 2)
    time.sleep(4)
    record.end_step("an application container is killed -9")


def test_every_worker_of_a_container_is_killed(serving: Deployment, record: LoadRecord) -> None:
    container = serving.containers("ms_flask_app")[1]
    # All that may be killed from inside: the first process starts new ones.
    subprocess.run(["docker", "exec", container, "sh", "-c", "kill -9 -1"], check=False)
    time.sleep(4)
    record.end_step("its workers are killed -9")


def test_nginx_reloads_its_configuration(serving: Deployment, record: LoadRecord) -> None:
    for _ in range(5):
        on(serving, "nginx", "nginx", "-s", "reload")
        time.sleep(1)
    record.end_step("Nginx reloads, five times")


def test_the_model_s_container_is_stopped_for_good(serving: Deployment, record: LoadRecord) -> None:
    serving.compose("stop", "ms_model")
    time.sleep(3)
    record.end_step("the model's container is stopped for good")
    serving.compose("up", "-d", "--no-recreate", "ms_model")


def test_every_answer_is_in_the_ledger_exactly_once(
    serving: Deployment, record: LoadRecord, record_property: Callable[[str, object], None]
) -> None:
    record.load.stop()
    record.ledger.add(record.load.take())
    record.ledger.read_ledger(serving)
    record_property("load", record.table())
    assert record.ledger.answered == record.ledger.sent > 1000
    assert record.ledger.lost == record.ledger.duplicated == 0


def test_there_is_nothing_to_replace_where_nothing_runs(checkout: Path) -> None:
    done = update(Deployment(checkout, "peerloan-test-nothing"), RELEASE)
    assert done.returncode == 1
    assert "no application runs; start it with: docker-compose up -d" in done.stderr
