"""The start by one command in a fresh clone, and signing in by a browser at both addresses."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from deploy.conftest import FirstStart
from deploy.deployment import Deployment, inspect, wait_for
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
    local = f"http://localhost:{serving.local}"
    assert requests.get(f"{local}/readyz", timeout=30).json()["status"] == "ready"
    answer = requests.get(local, timeout=30, allow_redirects=False)
    assert answer.status_code == 401
    assert "Strict-Transport-Security" not in answer.headers
    head = {"Authorization": f"Bearer {serving.token}"}
    answer = requests.post(f"{local}/v1/predictions", json=loan, headers=head, timeout=30)
    assert answer.json()["model"]["version"] == serving.serving()
    # Another address of this machine, as others would come by.
    networks = inspect(serving.containers("nginx")[0])["NetworkSettings"]["Networks"]
    address = networks[f"{serving.name}_front"]["Gateway"]
    with socket.socket() as probe:
        assert probe.connect_ex((address, serving.local)) != 0


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A browser without cookies."""
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


def state(deployment: Deployment) -> dict[str, Any]:
    """What `up` must not change."""
    return {
        "containers": {service: sorted(deployment.containers(service)) for service in SERVICES},
        "secrets": deployment.secrets(),
        "certificate": ssl.get_server_certificate(("127.0.0.1", deployment.https)),
    }


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
