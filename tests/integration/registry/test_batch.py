"""The same loans have the same decisions, to the last bit, whichever way they come."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from helpers.stores import VersionOf
from peerloan.book import open_writer
from peerloan.database import Database
from peerloan.database.tables import challenges
from peerloan.ledger import StoredDecision
from peerloan.ledger.queries import find_decisions, stream_decisions
from peerloan.loan import Checks
from peerloan.model import BANDS
from peerloan.registry import Store
from peerloan.sample_data import SCHEMA, batches
from peerloan.settings import Settings
from peerloan.web import create_app
from peerloan.web.services import services_of

LOANS = 60


def bits(kept: StoredDecision) -> tuple[object, ...]:
    """What the ledger has of a decision that follows from the loan and the version."""
    return kept.margin, kept.probability, bool(kept.late), kept.band, kept.reasons


def ask(store: Store, url: str, body: Any, challenged: int = 0) -> list[bytes]:
    """Have the service decide; wait for so many decisions of the challenger."""
    app = create_app(Settings(store.root, ledger=url), on_loopback=True)
    until = time.monotonic() + 60
    while challenged and services_of(app).serving_models.challenger is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    answer = app.test_client().post("/v1/predictions", json=body)
    assert answer.status_code == 200, answer.text
    while len(challenges_in(Database(url))) < challenged:
        assert time.monotonic() < until
        time.sleep(0.1)
    return [UUID(each["id"]).bytes for each in answer.json["predictions"]]  # type: ignore[index]


def challenges_in(database: Database) -> dict[bytes, float]:
    """The challenger's probabilities, by decision."""
    with database.reading() as connection:
        rows = connection.execute(select(challenges.c.decision_id, challenges.c.probability))
        return {decision.bytes: probability for decision, probability in rows}


@pytest.mark.parametrize(("candidate", "other"), [("additive", "basic"), ("basic", "additive")])
def test_every_way_gives_the_same_bits(
    store: Store,
    version_of: VersionOf,
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    candidate: str,
    other: str,
) -> None:
    url = f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}"
    version, database = version_of(candidate), Database(url)
    store.promote(version)
    with open_writer(tmp_path / "in.csv", SCHEMA) as writer:
        for batch in batches(LOANS, 11, "rate-shock"):
            writer.write(batch)

    done = run("score", "in.csv", "-o", "out.csv", "--record", ledger=url)
    assert done.returncode == 0, done.stderr
    recorded = list(itertools.chain.from_iterable(stream_decisions(database)))
    loans = [json.loads(each.inputs) for each in recorded]
    scored = [bits(each) for each in recorded]
    assert len(scored) == LOANS

    bundle = store.load(version)
    checks = Checks(bundle.definition)
    alone = [bundle.decide(checks.loan(loan).values) for loan in loans]
    assert [each[:4] for each in scored] == [
        (each.margin, each.probability, each.late, BANDS.index(each.band)) for each in alone
    ]

    names = list(loans[0])
    for body in (loans, {name: [loan[name] for loan in loans] for name in names}):
        ids = ask(store, url, body)
        found = find_decisions(database, ids)
        assert [bits(found[each]) for each in ids] == scored

    replayed = run("replay", "--json", ledger=url)
    assert replayed.returncode == 0, replayed.stdout
    assert json.loads(replayed.stdout)["identical"] == 3 * LOANS

    store.promote(version_of(other))
    store.challenge(version)
    ids = ask(store, url, loans, challenged=LOANS)
    shadow = challenges_in(database)
    assert [shadow[each] for each in ids] == [each.probability for each in alone]
