"""An Idempotency-Key: however often a request is repeated, wherever, it is decided once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from helpers.apps import create_app
from helpers.inference_protocol import INFER, LENGTH, in_binary, tensors
from helpers.service import Serve
from helpers.stores import VersionOf
from peerloan.database import Database, LedgerUnavailable, tables
from peerloan.ledger.write.group_commit import LIMIT_SECONDS
from peerloan.ledger.write.idempotency import KEY_MS
from peerloan.registry import Store, StoreFault
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens
from peerloan.web.prediction import commit
from peerloan.web.services import services_of

KEY = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
JSON = "application/json"
PREDICTIONS = "/v1/predictions"


def count(url: str, **where: object) -> int:
    """How many decisions there are."""
    table = tables.decisions
    wanted = select(func.count()).select_from(table)
    for name, value in where.items():
        wanted = wanted.where(table.c[name] == value)
    with Database(url).reading() as connection:
        return int(connection.execute(wanted).scalar_one())


@pytest.fixture
def start(store: Store, ledger_url: str) -> Callable[[], Flask]:
    """Make an application, as each worker has one."""
    Database(ledger_url).upgrade()
    settings = Settings(store.root, store.root.parent / "tokens", ledger_url)
    return lambda: create_app(settings, on_loopback=True)


@pytest.fixture
def client(start: Callable[[], Flask], store: Store, version_of: VersionOf) -> FlaskClient:
    """A client of an application that serves a scorecard."""
    store.promote(version_of("additive"))
    return start().test_client()


def post(
    client: FlaskClient, body: Any, key: str, path: str = PREDICTIONS, **headers: str
) -> TestResponse:
    """A request with a key."""
    head = {KEY: key} | {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) else json.dumps(body)
    return client.post(path, data=content, content_type=JSON, headers=head)


def columns(loans: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Loans as columns."""
    return {name: [each[name] for each in loans] for name in loans[0]}


@pytest.mark.parametrize("candidate", ["additive", "basic"])
@pytest.mark.parametrize(
    "query", ["", "?contributions=all", "?reasons=none", "?reasons=none&contributions=all"]
)
def test_the_first_answer_is_given_again(
    start: Callable[[], Flask],
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    ledger_url: str,
    candidate: str,
    query: str,
) -> None:
    store.promote(version_of(candidate))
    client, other = start().test_client(), start().test_client()
    many = [loan, loan | {"loan_id": "second", "dti": 3, "purpose": "unseen"}, loan | {"dti": 30}]
    named = [each | {"loan_id": f"L{i}"} for i, each in enumerate(many)]
    bodies = [loan, named[1], [loan], many, columns(named), columns(named[:1])]
    for i, body in enumerate(bodies):
        before = count(ledger_url)
        first = post(client, body, f"key-{i}", PREDICTIONS + query)
        assert first.status_code == 200, first.text
        assert REPLAYED not in first.headers
        kept = count(ledger_url)
        assert kept > before
        for again in (client, other):
            answer = post(again, body, f"key-{i}", PREDICTIONS + query)
            assert (answer.status_code, answer.data) == (200, first.data)
            assert answer.headers.getlist(REPLAYED) == ["true"]
        assert count(ledger_url) == kept


def test_only_what_was_kept_is_counted(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str
) -> None:
    def counted() -> float:
        name = "peerloan_ledger_decisions_total "
        lines = client.get("/metrics").text.splitlines()
        return float(next(line for line in lines if line.startswith(name)).removeprefix(name))

    before = counted()
    for body, key, status in (
        ([loan, loan], "first", 200),
        ([loan, loan], "first", 200),
        (loan, "first", 422),
        (loan, "second", 200),
    ):
        assert post(client, body, key).status_code == status
    assert counted() - before == count(ledger_url) == 3


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_the_page_and_the_protocol_give_theirs_again(
    start: Callable[[], Flask],
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    ledger_url: str,
    candidate: str,
) -> None:
    store.promote(version_of(candidate))
    client = start().test_client()
    form = {f"field.{name}": value for name, value in loan.items()}
    first, again = (client.post("/", data=form, headers={KEY: "page"}) for _ in range(2))
    assert first.status_code == 200
    assert again.data == first.data
    assert count(ledger_url) == 1
    given = columns([loan, loan | {"dti": 3}])
    binary, length = in_binary(given)
    for body, head in (
        ({"inputs": tensors(given), "id": "asked"}, {}),
        (
            {
                "inputs": tensors(given),
                "outputs": [{"name": "id"}, {"name": "reasons", "parameters": {}}],
            },
            {},
        ),
        (binary, {LENGTH: str(length)}),
    ):
        key, before = f"{len(str(body))}", count(ledger_url)
        first, again = (
            client.post(
                INFER,
                data=body if isinstance(body, bytes) else json.dumps(body),
                headers={KEY: key, **head},
            )
            for _ in range(2)
        )
        assert first.status_code == 200, first.text
        assert again.data == first.data
        assert again.headers.get(LENGTH) == first.headers.get(LENGTH)
        assert count(ledger_url) == before + 2


def test_another_request_with_the_key_is_refused(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str
) -> None:
    assert post(client, loan, "used").status_code == 200
    form = {f"field.{name}": value for name, value in loan.items()}
    others = [
        post(client, loan | {"dti": 3}, "used"),
        post(client, [loan], "used"),
        post(client, loan, "used", f"{PREDICTIONS}?contributions=all"),
        client.post("/", data=form, headers={KEY: "used"}),
    ]
    assert [each.status_code for each in others] == [422] * 4
    for each in others[:3]:
        assert each.headers["Content-Type"] == "application/problem+json"
        assert "Idempotency-Key: expected a new key for each request" in each.get_json()["detail"]
    answer = post(client, {"inputs": tensors(columns([loan]))}, "used", INFER)
    assert answer.status_code == 400, "the protocol knows no 422"
    assert "Idempotency-Key" in answer.get_json()["error"]
    assert count(ledger_url) == 1


def test_each_caller_has_keys_of_its_own(
    start: Callable[[], Flask],
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    ledger_url: str,
) -> None:
    store.promote(version_of("additive"))
    tokens = Tokens(store.root.parent / "tokens")
    heads = [f"Bearer {tokens.new(name, operator=False)}" for name in ("bank", "broker")]
    client = start().test_client()
    bank, broker, again = (
        post(client, loan, "same", Authorization=head).get_json() for head in [*heads, heads[0]]
    )
    assert bank["id"] != broker["id"]
    assert again == bank
    assert [count(ledger_url, caller=name) for name in ("bank", "broker")] == [1, 1]


@pytest.mark.parametrize("query", ["", "?contributions=all"])
def test_a_promotion_changes_no_answer_that_was_given(
    client: FlaskClient,
    start: Callable[[], Flask],
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    query: str,
) -> None:
    first = post(client, loan, "before", PREDICTIONS + query)
    store.promote(version_of("basic"))
    later = start().test_client()
    assert post(later, loan, "after").get_json()["model"]["version"] == version_of("basic")
    assert post(later, loan, "before", PREDICTIONS + query).data == first.data
    infer = {"inputs": tensors(columns([loan]))}
    by_protocol = post(client, infer, "protocol", INFER)
    assert post(later, infer, "protocol", INFER).data == by_protocol.data


def test_a_key_is_forgotten_after_a_day(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str
) -> None:
    def age(milliseconds: int) -> None:
        keys = tables.keys
        with Database(ledger_url).writing() as connection:
            connection.execute(update(keys).values(time_ms=keys.c.time_ms - milliseconds))

    first = post(client, loan, "daily").get_json()["id"]
    age(KEY_MS - 60_000)
    assert post(client, loan, "daily").get_json()["id"] == first
    age(120_000)
    second = post(client, loan | {"dti": 3}, "daily").get_json()["id"]
    assert second != first, "a new decision, also on another loan"
    assert post(client, loan | {"dti": 3}, "daily").get_json()["id"] == second
    assert count(ledger_url) == 2


@pytest.mark.parametrize("key", ["", "two words", "é", "k" * 256])
def test_a_wrong_key_is_refused(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str, key: str
) -> None:
    answer = post(client, loan, key)
    assert answer.status_code == 400
    assert answer.get_json()["detail"].startswith("Idempotency-Key: expected")
    assert count(ledger_url) == 0


def test_the_longest_key_is_taken(client: FlaskClient, loan: dict[str, Any]) -> None:
    key = "~" * 255
    assert post(client, loan, key).data == post(client, loan, key).data


def test_a_what_if_keeps_nothing_and_uses_up_no_key(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str
) -> None:
    asked = post(client, loan, "spared", f"{PREDICTIONS}?what_if=true")
    assert asked.status_code == 200
    assert count(ledger_url) == 0
    assert post(client, loan | {"dti": 3}, "spared").status_code == 200
    refused = post(client, loan | {"dti": -1}, "other")
    assert refused.status_code == 422
    assert post(client, loan, "other").status_code == 200, "what was refused used up no key"


def test_many_at_once_with_one_key_are_one_decision(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    loan: dict[str, Any],
    ledger_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By two services with two workers each, on one ledger."""
    store.promote(version_of("additive"))
    Database(ledger_url).upgrade()
    monkeypatch.setenv("PEERLOAN_LEDGER", ledger_url)
    services = [serve(store, workers=2) for _ in range(2)]
    ready = threading.Barrier(24)

    def ask(number: int) -> list[tuple[int, bytes]]:
        url = services[number % 2].url + PREDICTIONS
        found = []
        with requests.Session() as session:
            for key in range(5):
                ready.wait()
                answer = session.post(url, json=loan, headers={KEY: f"key-{key}"}, timeout=30)
                found.append((answer.status_code, answer.content))
        return found

    with ThreadPoolExecutor(24) as pool:
        every = list(pool.map(ask, range(24)))
    for of_key in zip(*every, strict=True):
        assert len(set(of_key)) == 1
        assert of_key[0][0] == 200
    assert count(ledger_url) == 5
    with Database(ledger_url).reading() as connection:
        chains = connection.execute(select(func.count()).select_from(tables.chains)).scalar_one()
    assert chains > 1, "several writers"


def test_a_key_that_another_process_holds(
    client: FlaskClient,
    store: Store,
    loan: dict[str, Any],
    ledger_url: str,
) -> None:
    """In PostgreSQL, where several write at once: the request waits, and others are answered."""
    if ledger_url.startswith("sqlite"):
        held = Database(ledger_url)
        with held.writing():  # here all would wait: one process writes at a time
            answer = post(client, loan, "held")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        return
    assert post(client, loan, "begin").status_code == 200
    with psycopg.connect(ledger_url.replace("+psycopg", "")) as other:
        other.execute(
            "INSERT INTO idempotency_keys (caller, key, time_ms, request, decisions) "
            "VALUES ('', 'held', %s, %s, '')",
            (time.time_ns() // 1_000_000, b"\0" * 32),
        )
        with ThreadPoolExecutor(10) as pool:
            began = time.monotonic()

            def ask(number: int) -> tuple[int, str | None, float]:
                own = client.application.test_client()
                key = "held" if number == 0 else f"own-{number}"
                answer = post(own, loan, key)
                waited = time.monotonic() - began
                return answer.status_code, answer.headers.get("Retry-After"), waited

            first, *neighbours = pool.map(ask, range(10))
        other.rollback()
    assert first[:2] == (409, "2")
    assert [status for status, *_ in neighbours] == [200] * 9
    assert max(waited for *_, waited in (first, *neighbours)) < LIMIT_SECONDS
    assert post(client, loan, "held").status_code == 200, "the other gave it up"


def test_a_key_waits_for_another_process_that_commits(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str
) -> None:
    first = post(client, loan, "slow").get_json()
    again = Database(ledger_url)
    with ThreadPoolExecutor() as pool:
        with again.writing() as connection:
            connection.execute(update(tables.keys).values(time_ms=tables.keys.c.time_ms + 1))
            asked = pool.submit(post, client.application.test_client(), loan, "slow")
            time.sleep(0.5)
        assert asked.result().get_json() == first


@pytest.mark.parametrize(
    ("fault", "status"),
    [(LedgerUnavailable("gone"), 503), (StoreFault("gone"), 503), (OSError("gone"), 500)],
)
def test_a_repeat_that_can_not_be_read_is_answered_like_every_error(
    client: FlaskClient,
    loan: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    fault: Exception,
    status: int,
) -> None:
    first = post(client, loan, "first")

    def failing(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(commit, "find_decisions", failing)
        answer = post(client, loan, "first", X_Request_Id="repeated-1")
    assert answer.status_code == status
    assert answer.content_type == "application/problem+json"
    assert answer.headers["X-Request-Id"] == "repeated-1"
    assert "gone" not in answer.text
    assert post(client, loan, "first").data == first.data


def test_what_follows_a_decision_can_not_keep_its_answer_back(
    client: FlaskClient, loan: dict[str, Any], ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def commit_callback(*_: object) -> Callable[[object], None]:
        def fail(_: object) -> None:
            raise RuntimeError("can't start new thread")

        return fail

    shadow = services_of(client.application).shadow
    monkeypatch.setattr(shadow, "commit_callback", commit_callback)
    assert client.post(PREDICTIONS, json=loan).status_code == 200
    assert count(ledger_url) == 1
