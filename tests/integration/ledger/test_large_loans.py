"""One loan is kept as at most 64 kB; releases before kept one of 4.9 MB, which is still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.ledgers import DAY_MS, Ledger, append, now_ms, record
from helpers.memory import measure
from helpers.service import settings
from peerloan.ledger import Record
from peerloan.ledger.queries import MAX_PAGE_BYTES, DecisionFilter, decision_page, stream_decisions
from peerloan.ledger.records import Version, encode_or_null, warnings_json
from peerloan.ledger.retention import purge
from peerloan.ledger.row_batches import MAX_BYTES
from peerloan.loan import Checks
from peerloan.model import BANDS
from peerloan.registry import Store
from peerloan.settings import Settings

PADDED_BYTES = 4_900_000
LOANS = 60
# A command has some 160 MB for its libraries alone; the loans together are 294 MB.
MAX_MB = 290


def padded(store: Store, loan: dict[str, Any], number: int) -> Record:
    """A decision of weeks ago on a valid loan that was sent with 4.9 MB of spaces."""
    bundle = store.load(store.versions()[0])
    decision = bundle.decide(Checks(bundle.definition).loan(loan).values, explain=True)
    return record(
        now_ms() - 20 * DAY_MS + number,
        version=Version.of(bundle),
        inputs=json.dumps(loan | {"loan_id": f"padded-{number}"}).ljust(PADDED_BYTES),
        loan_id=f"padded-{number}",
        margin=decision.margin,
        probability=decision.probability,
        late=decision.late,
        band=BANDS.index(decision.band),
        reasons=encode_or_null(decision.reasons),
        warnings=warnings_json(bundle.warnings),
    )


@pytest.fixture
def ledger(ledger_url: str, tmp_path: Path) -> Ledger:
    return Ledger(ledger_url, tmp_path)


@pytest.fixture
def client(store: Store, ledger: Ledger, tmp_path: Path) -> FlaskClient:
    """A service over that ledger."""
    store.promote(store.versions()[0])
    settings = Settings(store.root, tmp_path / "tokens", ledger.url)
    return create_app(settings, on_loopback=True).test_client()


def kept_inputs(ledger: Ledger) -> list[str]:
    return [each.inputs for some in stream_decisions(ledger.database) for each in some]


def test_of_a_loan_in_spaces_only_the_loan_is_kept(
    client: FlaskClient, ledger: Ledger, loan: dict[str, Any]
) -> None:
    compact = json.dumps(loan, separators=(",", ":"))
    for body in (compact, json.dumps(loan), json.dumps(loan, indent=4).ljust(PADDED_BYTES)):
        for many in (body, f"[{body}]"):
            answer = client.post("/v1/predictions", data=many, content_type="application/json")
            assert answer.status_code == 200, answer.text
    columns = json.dumps({name: [value] for name, value in loan.items()}).ljust(PADDED_BYTES)
    answer = client.post("/v1/predictions", data=columns, content_type="application/json")
    assert answer.status_code == 200, answer.text
    pasted = {"action": "paste", "pasted": json.dumps(loan, indent=4)}
    assert client.post("/", data=pasted).status_code == 200
    assert kept_inputs(ledger) == [compact] * 8


def test_a_loan_that_is_too_large_is_refused_and_named(
    client: FlaskClient, ledger: Ledger, loan: dict[str, Any]
) -> None:
    body = json.dumps(loan)
    # A valid number, of 70,000 digits.
    large = body.replace("0.2039", "0.2039" + "0" * 70_000)
    expected = "expected at most 64,000 bytes of compact JSON, given 70,"
    for query in ("", "?what_if=true"):

        def ask(content: str, query: str = query) -> tuple[int, Any]:
            address = f"/v1/predictions{query}"
            answer = client.post(address, data=content, content_type="application/json")
            assert len(answer.data) < 1_000
            return answer.status_code, answer.json

        status, alone = ask(large)
        assert (status, alone["title"]) == (413, "Loan Too Large")
        assert alone["detail"].startswith(f"the loan: {expected}")
        status, listed = ask(f"[{body},{body},{large}]")
        assert (status, listed["title"]) == (422, "Loans Too Large")
        assert listed["detail"].startswith(f"loan 2, (loan): {expected}")
        assert [each["loan"] for each in listed["errors"]] == [2]
    assert kept_inputs(ledger) == []


def test_no_answer_repeats_megabytes_that_were_sent(client: FlaskClient, ledger: Ledger) -> None:
    large = "x" * 4_000_000
    names = json.dumps(dict.fromkeys(map(str, range(300_000)), 1))
    event = "/v1/events/00000000-0000-7000-8000-000000000000/acknowledge"
    for path, sent in (
        ("/", {"data": {"action": "paste", "pasted": large}}),
        ("/", {"data": {"field.purpose": large, "field.loan_amnt": large}}),
        ("/v1/predictions", {"data": names, "content_type": "application/json"}),
        ("/v1/predictions", {"data": f"[{names}]", "content_type": "application/json"}),
        ("/v1/predictions", {"json": {"loan_amnt": large, large: large}}),
        ("/v1/outcomes", {"data": names, "content_type": "application/json"}),
        (
            "/v1/outcomes",
            {"data": f'{{"outcomes": [{names}]}}', "content_type": "application/json"},
        ),
        (event, {"data": names, "content_type": "application/json"}),
        (event, {"json": {"why": large}}),
    ):
        answer = client.post(path, **sent)
        assert answer.status_code in (200, 400, 413, 422), answer.text[:500]
        assert len(answer.data) < 700_000, path
    assert kept_inputs(ledger) == []


def test_a_page_of_large_loans_says_where_it_goes_on(
    client: FlaskClient, ledger: Ledger, store: Store, loan: dict[str, Any]
) -> None:
    kept = fill(ledger, store, loan, 10)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = client.get("/v1/predictions", query_string={"limit": 1_000, **cursor})
        assert len(answer.data) < PADDED_BYTES + 100_000
        told: Any = answer.json
        seen += [each["id"] for each in told["predictions"]]
        if told["next"] is None:
            break
        cursor = {"cursor": told["next"]}
    assert len(seen) == len(set(seen)) == kept
    assert seen == sorted(seen, reverse=True)


def fill(ledger: Ledger, store: Store, loan: dict[str, Any], count: int) -> int:
    """Keep so many of them, and a small one before each ten; returns how many loans that are."""
    chain = ledger.chain()
    for first in range(0, count, 10):
        small = padded(store, loan, first)
        append(chain, [small._replace(inputs=json.dumps(loan))])
        append(chain, [padded(store, loan, number) for number in range(first, first + 10)])
    chain.close()
    return count + count // 10


@pytest.mark.longer
def test_each_command_reads_them_in_bounded_memory(
    ledger: Ledger, store: Store, loan: dict[str, Any], tmp_path: Path
) -> None:
    kept = fill(ledger, store, loan, LOANS)
    store.promote(store.versions()[0])
    environment = settings(store.root) | {"PEERLOAN_LEDGER": ledger.url}
    for told, *arguments in (
        (f"{kept} of {kept} decisions are identical, bit for bit", "replay"),
        (f"{kept} records in 1 chain: all as they were written", "ledger", "verify"),
        (f"out.parquet: {kept} decisions", "ledger", "export", "--out", "out.parquet"),
        (f"out.csv: {kept} decisions", "ledger", "export", "--out", "out.csv"),
        ("", "monitor", "--since", "2020-01-01"),
    ):
        found = measure(tmp_path, environment, *arguments)
        assert found.code == 0, found.output
        assert told in found.output
        assert found.peak_mb < MAX_MB, arguments


def test_pages_lists_and_chunks_end_before_they_are_full(
    ledger: Ledger, store: Store, loan: dict[str, Any]
) -> None:
    kept = fill(ledger, store, loan, 10)
    lists = [[len(each.inputs) for each in some] for some in stream_decisions(ledger.database)]
    assert sum(map(len, lists)) == kept
    assert all(sum(some[:-1]) < MAX_BYTES for some in lists)
    seen: list[bytes] = []
    more, before = True, None
    while more:
        found, more = decision_page(ledger.database, DecisionFilter(), 100, before)
        assert len(found) == 1 or sum(len(each.inputs) for each in found) <= MAX_PAGE_BYTES
        seen += [each.id for each in found]
        before = seen[-1]
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) == kept
    told: list[int] = []
    assert purge(ledger.database, ledger.seal, now_ms() - 2 * DAY_MS, "tests", told.append) == kept
    assert max(after - prior for prior, after in zip([0, *told], told, strict=False)) <= 3
    assert not list(stream_decisions(ledger.database))
