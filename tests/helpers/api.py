"""A running service with a candidate as champion, and loans to send to it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests

from helpers.service import SERVERS, Service
from helpers.stores import champion_store, find_version
from peerloan.loan import default_definition
from peerloan.registry import Store

JSON = "application/json"
MB = 1_000_000


class Api:
    """A running service and the version that it serves."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service, self.store = service, store
        self.url = service.url
        self.version = str(store.state().champion)
        self.bundle = store.load(self.version)
        self.session = requests.Session()

    def post(
        self, body: Any, query: str = "", content_type: str | None = JSON
    ) -> requests.Response:
        """POST a body: bytes and text as they are, anything else as JSON."""
        if isinstance(body, str):
            body = body.encode()
        elif not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {} if content_type is None else {"Content-Type": content_type}
        return self.session.post(
            f"{self.url}/v1/predictions{query}", data=body, headers=headers, timeout=30
        )

    def get(self, path: str) -> requests.Response:
        """GET a path."""
        return self.session.get(f"{self.url}{path}", timeout=20)

    def one(self, loan: dict[str, Any], query: str = "") -> dict[str, Any]:
        """The response to a loan that must be accepted."""
        answer = self.post(loan, query)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def many(self, loans: Any, query: str = "") -> list[dict[str, Any]]:
        """The predictions for loans that must be accepted."""
        predictions: list[dict[str, Any]] = self.one(loans, query)["predictions"]
        return predictions


def started(
    trained: Path,
    folder: Path,
    candidate: str,
    challenger: str | None = None,
    server: str = "granian",
) -> Iterator[Api]:
    """Run a service with this champion, and optionally a challenger; for a module's fixture."""
    store = champion_store(trained, folder, candidate)
    if challenger is not None:
        store.challenge(find_version(store, challenger))
    command, python = SERVERS[server]
    service = Service(store.root, folder / "server.log", workers=1, server=command, python=python)
    try:
        service.wait_for(lambda: service.serving() is not None)
        if challenger is not None:
            service.wait_for(lambda: "in shadow: " in service.log.read_text("utf-8"))
        yield Api(service, store)
    finally:
        service.stop()


def loans(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Random valid loans, some with missing values."""
    draw = random.Random(seed)
    fields = {field.name: field for field in default_definition().fields}
    return [
        {
            "loan_amnt": draw.randint(1_000, 40_000),
            "int_rate": round(draw.uniform(0.05, 0.35), 4),
            "purpose": draw.choice(fields["purpose"].levels),
            "grade": draw.choice(fields["grade"].levels),
            "annual_inc": round(draw.lognormvariate(11, 1), 2),
            "revol_util": draw.choice([None, round(draw.random(), 3)]),
            "emp_length": draw.choice([None, *fields["emp_length"].levels]),
            "dti": round(draw.uniform(0, 45), 2),
            "delinq_2yrs": draw.choice([0, 0, 1, 5]),
            "home_ownership": draw.choice(["RENT", "OWN", "MORTGAGE"]),
        }
        for _ in range(count)
    ]


def columns(records: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Convert records to lists of values by column."""
    return {name: [record[name] for record in records] for name in records[0]}
