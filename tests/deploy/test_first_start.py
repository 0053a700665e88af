"""One command in a fresh clone, and a person with a browser at both of its addresses."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from deploy.conftest import FirstStart
from deploy.deployment import Deployment, clone, inspect, sh, wait_for
from helpers.page import Page, browser

SERVICES = ("nginx", "ms_flask_app", "ms_model", "ms_monitor", "ledger")


def test_images_are_built_and_none_of_the_project_s_is_asked_for(first_start: FirstStart) -> None:
    printed = first_start.printed
    for service in ("ms_model", "ledger_upgrade"):
        assert f"Image for service {service} was built" in printed
    assert "Pulling" not in printed


def test_the_clone_stays_as_it_was(first_start: FirstStart) -> None:
    assert first_start.added == frozenset()


def test_plain_http_is_served_to_this_machine_alone(
    serving: Deployment, loan: dict[str, Any]
) -> None:
    here = f"http://localhost:{serving.local}"
    assert requests.get(f"{here}/readyz", timeout=30).json()["status"] == "ready"
    answer = requests.get(here, timeout=30, allow_redirects=False)
    assert answer.status_code == 401
    assert "Strict-Transport-Security" not in answer.headers
    head = {"Authorization": f"Bearer {serving.token}"}
    answer = requests.post(f"{here}/v1/predictions", json=loan, headers=head, timeout=30)
    assert answer.json()["model"]["version"] == serving.serving()
    # Another address of this machine, as others would come by.
    networks = inspect(serving.containers("nginx")[0])["NetworkSettings"]["Networks"]
    address = networks[f"{serving.name}_front"]["Gateway"]
    with socket.socket() as probe:
        assert probe.connect_ex((address, serving.local)) != 0


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser that has visited neither address."""
    driver = browser(tmp_path, "--ignore-certificate-errors")
    yield driver
    driver.quit()


@pytest.mark.parametrize("first", ["https", "http"])
def test_a_person_signs_in_and_submits_the_form_at_both_addresses(
    serving: Deployment, chromium: webdriver.Chrome, first: str
) -> None:
    addresses = [f"https://localhost:{serving.https}/", f"http://localhost:{serving.local}/"]
    for address in addresses if first == "https" else reversed(addresses):
        page = Page(chromium, address).open()
        if page.text("h1") == "Sign in":
            before = page.at("html")
            page.at("#token").send_keys(serving.token, Keys.ENTER)
            page.wait_until_left(before)
        assert page.text("h1") == "Enter a loan"
        assert page.driver.current_url.startswith(address)
        page.decide()
        assert page.probability() > 0


def state(here: Deployment) -> dict[str, Any]:
    """What an `up` must leave as it is."""
    return {
        "containers": {each: sorted(here.containers(each)) for each in SERVICES},
        "secrets": secrets(here),
        "certificate": ssl.get_server_certificate(("127.0.0.1", here.https)),
    }


def secrets(here: Deployment) -> list[str]:
    """The password as each service reads it, and the webhook's secret."""
    services = ("ledger", "ms_flask_app", "ms_model", "ms_monitor")
    return [*map(here.secret, services), here.secret("ms_monitor", "webhook_secret")]


def test_a_second_start_changes_nothing(serving: Deployment) -> None:
    before = state(serving)
    serving.compose("up", "-d")
    assert state(serving) == before


def test_what_was_made_outlives_its_containers(serving: Deployment, loan: dict[str, Any]) -> None:
    before, champion = state(serving), serving.serving()
    decision = serving.post("/v1/predictions", json=loan).json()["id"]
    serving.compose("down")
    serving.compose("up", "-d")
    wait_for("the champion of before", lambda: serving.settled(champion))
    after = state(serving)
    assert after.pop("containers") != before.pop("containers")
    assert after == before
    assert serving.sql(f"SELECT id FROM decisions WHERE id = '{decision}'") == [decision]
    assert serving.post("/v1/predictions", json=loan).ok


def test_the_newer_compose_starts_it_too_and_anew_once_its_volumes_are_gone(
    first_start: FirstStart, tmp_path: Path
) -> None:
    tool = ["docker", "compose"]
    if subprocess.run([*tool, "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no `docker compose`: the newer compose is not tested")
    here = Deployment(
        clone(tmp_path / "peerloan"), "peerloan-test-newer", PEERLOAN_RELEASE="test-newer"
    )
    here.tool = tool
    images = [f"peerloan/{name}:test-newer" for name in ("ms_flask_app", "ms_model")]
    here.compose("down", "--volumes")  # of a run that was cut off
    subprocess.run(["docker", "rmi", "--force", *images], capture_output=True, check=False)
    try:
        done = here.ask("up", "-d")
        assert done.returncode == 0, done.stderr[-3000:]
        assert "pull" not in done.stderr.lower()
        sh("docker", "image", "inspect", *images)
        made = secrets(here)
        assert len(set(made)) == 2
        ask = f"http://localhost:{here.local}/healthz"
        wait_for("an answer", lambda: requests.get(ask, timeout=5).ok)
        here.compose("down", "--volumes")
        here.compose("up", "-d", "--build")
        assert set(secrets(here)).isdisjoint(made)
        wait_for("an answer", lambda: requests.get(ask, timeout=5).ok)
        assert inspect(here.containers("ledger")[0])["State"]["Health"]["Status"] == "healthy"
    finally:
        here.compose("down", "--volumes")
