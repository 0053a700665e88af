"""Requests for predictions, and for the metrics and readiness of a service."""

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
    """The values of a metric, by the values of its labels in the order of their names."""
    text = requests.get(f"{service.url}/metrics", timeout=10).text
    return {
        tuple(sample.labels[key] for key in sorted(sample.labels)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def predict(service: Service, body: Any, query: str = "", **headers: str) -> requests.Response:
    """POST a loan or loans, over a new connection, so that any worker may answer."""
    return requests.post(
        f"{service.url}/v1/predictions{query}", json=body, headers=headers, timeout=20
    )


def challenger_decisions(service: Service) -> float:
    """How many decisions of the challenger the service has counted, of every outcome."""
    return sum(figures(service, COUNT).values())


def ready(service: Service) -> dict[str, Any]:
    """The readiness of a service that must be ready."""
    answer = requests.get(f"{service.url}/readyz", timeout=10)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body


def readiness(client: FlaskClient) -> dict[str, Any]:
    """The readiness of an application."""
    body: dict[str, Any] | None = client.get("/readyz").json
    assert body is not None
    return body


def get_json(client: FlaskClient, path: str, **query: object) -> Any:
    """The JSON at a path, which must answer with 200."""
    answer = client.get(path, query_string=query)
    assert answer.status_code == 200, answer.text
    return answer.json


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fails after a minute."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, "the condition did not hold within a minute"
        time.sleep(0.05)
