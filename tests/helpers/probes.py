"""What a running service says of itself, and predictions that it is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import requests
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from helpers.service import Service

COUNT = "peerloan_challenger_decisions_total"


def figures(service: Service, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by their labels' values, in the labels' order."""
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    return {
        tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def predict(service: Service, body: Any, query: str = "", **headers: str) -> requests.Response:
    # A connection each, so that several workers are asked.
    return requests.post(
        f"{service.url}/v1/predictions{query}", json=body, headers=headers, timeout=20
    )


def counted(service: Service) -> float:
    return sum(figures(service, COUNT).values())


def ready(service: Service) -> dict[str, Any]:
    """What the service says of itself, with a champion."""
    answer = requests.get(f"{service.url}/readyz", timeout=10)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def readiness(client: FlaskClient) -> dict[str, Any]:
    """What an application says of itself."""
    found: dict[str, Any] | None = client.get("/readyz").json
    assert found is not None
    return found


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; a hang ends in a failure."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)
