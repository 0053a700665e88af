"""Bodies that would keep a worker busy: what is done for one request is counted, and bounded."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.ledger.audit.replay import Replay
from peerloan.ledger.queries import find_decisions
from peerloan.loan import MAX_COMPARISONS, default_definition
from peerloan.registry import Store
from peerloan.settings import Settings

NAMES = default_definition().names
MOST_NAMED = 10_000


@pytest.fixture
def client(store: Store, version_of: VersionOf, tmp_path: Path) -> FlaskClient:
    """A service with a ledger."""
    store.promote(version_of("additive"), "the first", first=True)
    chosen = Settings(store.root, tmp_path / "tokens", f"sqlite:///{tmp_path / 'ledger.db'}")
    return create_app(chosen, on_loopback=True).test_client()


def post(client: FlaskClient, body: object, status: int) -> dict[str, Any]:
    """The answer to a body."""
    answer = client.post(
        "/v1/predictions", data=json.dumps(body).encode(), content_type="application/json"
    )
    assert answer.status_code == status, answer.text[:500]
    found: dict[str, Any] = answer.json or {}
    return found


def suggested(errors: list[dict[str, Any]]) -> list[str]:
    """The different names to which another was suggested."""
    return list(dict.fromkeys(e["field"] for e in errors if "did you mean" in e["expected"]))


def test_a_long_list_of_misspelt_names_is_answered_with_a_hundred_suggestions(
    client: FlaskClient,
) -> None:
    """4 MB, twenty names a loan, each near to a field's, no two the same."""
    shuffled = random.Random(3)
    loans: list[dict[str, int]] = []
    for _ in range(7_000):
        loan = {}
        for i in range(20):
            name = NAMES[i % len(NAMES)] + NAMES[(7 * i + 3) % len(NAMES)][:4]
            loan["".join(shuffled.sample(name, len(name)))] = 1
        loans.append(loan)

    errors = post(client, loans, 422)["errors"]

    assert len(suggested(errors)) <= MAX_COMPARISONS // len(NAMES)
    # Every name that was looked at is an error, with a suggestion or without.
    looked_at = loans[: errors[-1]["loan"] + 1]
    assert {name for loan in looked_at for name in loan} <= {each["field"] for each in errors}


def test_a_name_that_is_wrong_in_every_loan_gets_its_suggestion_in_each(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    errors = post(client, [loan | {"anual_inc": 1}] * 9_000, 422)["errors"]

    assert len(errors) == 9_000
    assert all("did you mean annual_inc?" in each["expected"] for each in errors)


def test_columns_and_the_open_inference_protocol_share_the_limit(client: FlaskClient) -> None:
    unknown = {f"anual_inc_{i}": [1] for i in range(900)}
    errors = post(client, unknown, 422)["errors"]
    assert suggested(errors) == list(unknown)[: MAX_COMPARISONS // len(NAMES)]
    assert unknown.keys() <= {each["field"] for each in errors}

    inputs = [{"name": name, "shape": [1], "datatype": "INT64", "data": [1]} for name in unknown]
    answer = client.post(f"/v2/models/{default_definition().model}/infer", json={"inputs": inputs})
    assert answer.status_code == 400


def test_a_small_body_does_not_get_a_large_answer(client: FlaskClient) -> None:
    """30 kB of empty loans lack 80,000 values."""
    errors = post(client, [{}] * 10_000, 422)["errors"]

    assert MOST_NAMED < len(errors) < MOST_NAMED + len(NAMES) + 1


def test_many_unseen_levels_are_accepted_and_replay_though_few_get_a_suggestion(
    client: FlaskClient, store: Store, loan: dict[str, Any], tmp_path: Path
) -> None:
    loans = [loan | {"purpose": f"credit_kard_{i}"} for i in range(300)]

    predictions = post(client, loans, 200)["predictions"]

    warnings = ["; ".join(each["warnings"]) for each in predictions]
    assert all("was not seen in training" in text for text in warnings)
    hinted = ["(did you mean credit_card?)" in text for text in warnings]
    seen = store.load(store.versions()[0]).definition.fields[NAMES.index("purpose")].seen_levels
    assert sum(hinted) == -(-MAX_COMPARISONS // len(seen))
    replay = Replay(store)
    ids = [UUID(each["id"]).bytes for each in predictions]
    replay.add(list(find_decisions(Database(f"sqlite:///{tmp_path / 'ledger.db'}"), ids).values()))
    assert replay.report.identical == 300
