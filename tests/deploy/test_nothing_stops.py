"""Under a steady load through Nginx, each part is replaced, and no request fails."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from deploy.deployment import RELEASE, Deployment, inspect, sh, wait_for
from deploy.keeping import Kept
from deploy.releases import BROKEN
from helpers.steady_load import Load, Tally
from peerloan.database import tables as schema
from peerloan.loan import default_definition

# The migrations of this release; the next one has one more.
OWN_TABLES = [str(number) for number in range(1, schema.NUMBER + 1)]


@dataclass
class Proof:
    """A load that goes on from test to test, a line for each, and what the ledger kept of it."""

    load: Load = field(repr=False)
    kept: Kept
    lines: list[tuple[str, Tally]] = field(default_factory=list, repr=False)

    def done(self, what: str) -> Tally:
        """End a step: what the clients saw in it."""
        tally = self.load.take()
        self.kept.add(tally)
        self.lines.append((what, tally))
        assert tally.requests > 100, "there was a load"
        assert tally.faults == []
        return tally


@pytest.fixture(scope="module")
def proof(serving: Deployment, sample_book: Path, pytestconfig: pytest.Config) -> Iterator[Proof]:
    (serving.folder / "books" / "next.csv").write_text(sample_book.read_text("utf-8"), "utf-8")
    loan = {field.name: field.default for field in default_definition().fields}
    kept = Kept()
    with Load(serving.https, loan, token=serving.token) as load:
        time.sleep(1)
        kept.add(load.take())
        made = Proof(load, kept)
        yield made
    show(made, pytestconfig)


def show(proof: Proof, config: pytest.Config) -> None:
    """Print the table beside the tests' own output."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    rows = [("under load", "requests", "failed", "repeated", "longest wait", "versions")]
    for what, tally in proof.lines:
        seen = " ".join(sorted(tally.versions))
        counts = (f"{tally.requests:,}", str(tally.failed), str(tally.repeated))
        rows.append((what, *counts, f"{tally.longest:.2f} s", seen))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    with capture.global_and_fixture_disabled():
        print()
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        print(proof.kept)


def on(here: Deployment, service: str, *command: str) -> str:
    """Run a command in a service's container."""
    return here.compose("exec", "-T", service, *command)


def images(here: Deployment) -> set[str]:
    """The images of the application's containers."""
    ask = ("docker", "inspect", "-f", "{{.Config.Image}}")
    return {sh(*ask, container).strip() for container in here.containers("ms_flask_app")}


def update(here: Deployment, release: str) -> subprocess.CompletedProcess[str]:
    """Replace the application's containers as an operator does."""
    return subprocess.run(
        ["sh", "deploy/update.sh"],
        cwd=here.folder,
        env=os.environ | here.settings | {"PEERLOAN_RELEASE": release},
        capture_output=True,
        text=True,
        check=False,
    )


def test_at_rest(proof: Proof) -> None:
    time.sleep(5)
    assert len(proof.done("at rest").versions) == 1


def test_a_model_is_trained_and_promoted(serving: Deployment, proof: Proof) -> None:
    before = serving.serving()
    on(serving, "ms_model", *["peerloan", "train", "/books/next.csv", "--quick", "--promote"])
    wait_for("the new champion", lambda: serving.settled() and serving.serving() != before)
    time.sleep(1)
    tally = proof.done("a model is trained and promoted")
    assert set(tally.versions) == {before, serving.serving()}


def test_it_is_rolled_back(serving: Deployment, proof: Proof) -> None:
    before = serving.serving()
    on(serving, "ms_model", "peerloan", "models", "rollback")
    wait_for("the champion before", lambda: serving.settled() and serving.serving() != before)
    time.sleep(1)
    assert len(proof.done("it is rolled back").versions) == 2


@pytest.mark.parametrize("count", [4, 2])
def test_the_application_is_scaled(serving: Deployment, proof: Proof, count: int) -> None:
    serving.compose("up", "-d", "--no-recreate", PEERLOAN_APPS=str(count))
    nginx = serving.containers("nginx")[0]

    def balanced() -> bool:
        servers = sh("docker", "exec", nginx, "cat", "/tmp/peerloan/servers.conf")
        return servers.count("server ") == count

    wait_for("Nginx knows", balanced)
    time.sleep(2)
    proof.done(f"the application is scaled to {count}")


def is_healthy(container: str) -> bool:
    """Whether the engine holds a container for healthy."""
    return bool(inspect(container)["State"]["Health"]["Status"] == "healthy")


def tables(here: Deployment) -> list[str]:
    """The migrations that the ledger's tables have been brought through."""
    return here.sql("SELECT number FROM migrations ORDER BY number")


def test_a_release_whose_migration_fails_is_not_taken(
    serving: Deployment, proof: Proof, next_images: dict[str, str]
) -> None:
    before = serving.containers("ms_flask_app")
    done = update(serving, next_images["fails"])
    assert done.returncode == 1
    assert "the ledger was not upgraded; the old ones stay" in done.stderr
    assert serving.containers("ms_flask_app") == before
    assert tables(serving) == OWN_TABLES
    proof.done("a release whose migration fails is refused")


def test_the_image_is_replaced_container_by_container(
    serving: Deployment, proof: Proof, next_images: dict[str, str]
) -> None:
    release = next_images["admits the release before"]
    done = update(serving, release)
    assert done.returncode == 0, done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{release}"}
    assert tables(serving) == [*OWN_TABLES, str(schema.NUMBER + 1)]
    time.sleep(1)
    proof.done("image and tables are replaced by the next release's")


def test_the_release_before_is_brought_back_and_restarts_on_the_new_tables(
    serving: Deployment, proof: Proof
) -> None:
    done = update(serving, RELEASE)
    assert done.returncode == 0, done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{RELEASE}"}
    container = serving.containers("ms_flask_app")[0]
    sh("docker", "restart", container)
    wait_for("it is back", lambda: is_healthy(container))
    assert tables(serving) == [*OWN_TABLES, str(schema.NUMBER + 1)]
    proof.done("the release before is brought back, and restarts")


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_release_is_not_taken(
    serving: Deployment, proof: Proof, broken_images: dict[str, str], what: str
) -> None:
    done = update(serving, broken_images[what])
    assert done.returncode == 1
    assert "the old ones stay" in done.stderr
    assert images(serving) == {f"peerloan/ms_flask_app:{RELEASE}"}
    assert len(serving.containers("ms_flask_app")) == 2
    proof.done(f"an image that {what} is refused")


def test_a_container_is_killed(serving: Deployment, proof: Proof) -> None:
    container = serving.containers("ms_flask_app")[0]
    sh("docker", "kill", "--signal", "KILL", container)
    time.sleep(4)
    sh("docker", "start", container)
    wait_for("both are back", lambda: len(serving.containers("ms_flask_app")) == 2)
    time.sleep(4)
    proof.done("an application container is killed -9")


def test_every_worker_of_a_container_is_killed(serving: Deployment, proof: Proof) -> None:
    container = serving.containers("ms_flask_app")[1]
    # All that may be killed from inside: the first process starts new ones.
    subprocess.run(["docker", "exec", container, "sh", "-c", "kill -9 -1"], check=False)
    time.sleep(4)
    proof.done("its workers are killed -9")


def test_nginx_reloads_its_configuration(serving: Deployment, proof: Proof) -> None:
    for _ in range(5):
        on(serving, "nginx", "nginx", "-s", "reload")
        time.sleep(1)
    proof.done("Nginx reloads, five times")


def test_the_model_s_container_is_stopped_for_good(serving: Deployment, proof: Proof) -> None:
    serving.compose("stop", "ms_model")
    time.sleep(3)
    proof.done("the model's container is stopped for good")
    serving.compose("up", "-d", "--no-recreate", "ms_model")


def test_every_answer_is_in_the_ledger_exactly_once(serving: Deployment, proof: Proof) -> None:
    proof.load.stop()
    proof.kept.add(proof.load.take())
    proof.kept.count(serving)
    assert proof.kept.answered == proof.kept.sent > 1000
    assert proof.kept.lost == proof.kept.doubled == 0


def test_there_is_nothing_to_replace_where_nothing_runs(checkout: Path) -> None:
    done = update(Deployment(checkout, "peerloan-test-nothing"), RELEASE)
    assert done.returncode == 1
    assert "no application runs; start it with: docker-compose up -d" in done.stderr
