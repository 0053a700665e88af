"""Decisions are handed to the ledger complete: the writer's lock only numbers them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import pytest

from helpers.stores import VersionOf
from peerloan.ledger import Entry
from peerloan.ledger.seal_ownership import open_seal
from peerloan.ledger.write.group_commit import LedgerWriter, OnResult
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import IdGenerator
from peerloan.web import create_app
from peerloan.web.prediction import commit
from peerloan.web.prediction.commit import DecisionCommitter
from peerloan.web.services import install, services_of


def test_no_record_is_built_while_the_writer_holds_its_lock(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries: list[Entry] = []

    def refuse(_: object) -> NoReturn:
        raise AssertionError("built with the lock held")

    class Watched(LedgerWriter):
        def put(self, make: Callable[[IdGenerator], Entry], told: OnResult) -> None:
            def number(ids: IdGenerator) -> Entry:
                with monkeypatch.context() as locked:
                    locked.setattr(commit, "encode_or_null", refuse)
                    entries.append(make(ids))
                return entries[-1]

            super().put(number, told)

    store.promote(version_of("additive"))
    settings = Settings(store.root)
    app = create_app(settings, on_loopback=True)
    held = services_of(app)
    writer = Watched(held.database, lambda: open_seal(settings.seal_folder, held.database))
    committer = DecisionCommitter(writer, held.database, held.store, held.serving_models)
    install(app, replace(held, committer=committer))
    client: Any = app.test_client()
    answer = client.post("/v1/predictions", json=[loan, loan | {"loan_amnt": 9_000}, loan])
    assert answer.status_code == 200, answer.text
    predictions = answer.json["predictions"]
    ids = [each["id"] for each in predictions]
    assert ids == sorted(set(ids))
    (entry,) = entries
    assert [each.id.hex() for each in entry.records] == [each.replace("-", "") for each in ids]
    for prediction in predictions:
        kept = client.get(f"/v1/predictions/{prediction['id']}").json
        assert {name: kept[name] for name in prediction} == prediction
