"""The pages of stored decisions: list, filter, one decision, search."""

from __future__ import annotations

import re
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import update

from helpers.stores import VersionOf
from peerloan.database import Database, tables
from peerloan.registry import Store

Loan = dict[str, Any]


def decide(client: FlaskClient, loan: Loan, **changes: Any) -> Loan:
    answer = client.post("/v1/predictions", json=loan | changes)
    assert answer.status_code == 200, answer.text
    decided: Loan = answer.get_json()
    return decided


def text_of(page: str) -> str:
    """The visible text of a page."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<main")[2]).split())


def test_without_decisions_the_list_says_where_they_come_from(client: FlaskClient) -> None:
    page = client.get("/decisions")
    assert page.status_code == 200
    assert "No decision is kept yet." in page.text
    assert "peerloan score BOOK --record" in page.text


def test_the_list_shows_the_newest_first_and_leads_to_each(client: FlaskClient, loan: Loan) -> None:
    made = [decide(client, loan, loan_id=f"loan-{i}") for i in range(3)]
    page = client.get("/decisions?limit=2").text
    assert page.index("loan-2") < page.index("loan-1")
    assert "loan-0" not in page
    for each in made[1:]:
        assert f'href="/decisions/{each["id"]}"' in page
    (following,) = re.findall(r'rel="next" href="([^"]+)"', page)
    older = client.get(following.replace("&amp;", "&")).text
    assert "loan-0" in older
    assert "loan-1" not in older
    assert 'rel="next"' not in older
    assert '<a href="/decisions?limit=2">newest</a>' in older


def test_a_filter_is_in_the_address_without_its_empty_inputs(
    client: FlaskClient, loan: Loan
) -> None:
    decide(client, loan, loan_id="mine")
    decide(client, loan, loan_id="other")
    sent = client.get("/decisions?loan_id=mine&since=&until=&version=&band=")
    assert (sent.status_code, sent.location) == (302, "/decisions?loan_id=mine")
    page = client.get(sent.location).text
    assert 'value="mine"' in page
    assert "other" not in text_of(page)
    assert "matches the filter" in client.get("/decisions?loan_id=nobody").text


@pytest.mark.parametrize("wrong", ["since=yesterday", "band=huge", "cursor=x", "colour=red"])
def test_a_wrong_filter_is_named(client: FlaskClient, wrong: str) -> None:
    page = client.get(f"/decisions?{wrong}")
    assert page.status_code == 400
    assert f"?{wrong.partition('=')[0]}" in page.text


def test_one_decision_is_shown_as_it_was_answered(client: FlaskClient, loan: Loan) -> None:
    risky = loan | {"int_rate": 0.24, "grade": "F", "annual_inc": 24_000}
    answer = decide(client, risky, loan_id="L<1>")
    page = client.get(f"/decisions/{answer['id']}").text
    text = text_of(page)
    assert "Loan L&lt;1&gt;" in text
    assert f"{100 * answer['probability']:.2f} %" in text
    assert ("not flagged" in text) != answer["late"]
    assert "Annual income 24,000 US dollars a year" in text
    assert answer["reasons"]
    for reason in answer["reasons"]:
        assert reason["sentence"] in text
    assert answer["model"]["digest"][:12] in text
    assert f"peerloan replay {answer['id']}" in text


def test_the_contributions_add_up_to_the_margin(client: FlaskClient, loan: Loan) -> None:
    answer = decide(client, loan)
    exact = client.post("/v1/predictions?what_if=true&contributions=all", json=loan).get_json()
    page = client.get(f"/decisions/{answer['id']}").text
    shown = re.findall(r'<div class="value">([^<]+)</div>', page)
    parts = sorted(exact["contributions"].values(), key=lambda part: -abs(part))
    assert shown == [f"{part:.2f}".replace("-", "−").replace("−0.00", "0.00") for part in parts]
    assert exact["base"] + sum(parts) == pytest.approx(exact["margin"])


def test_contributions_that_are_not_those_of_then_are_not_shown(
    client: FlaskClient, loan: Loan, database: Database
) -> None:
    answer = decide(client, loan)
    with database.writing() as connection:
        connection.execute(update(tables.decisions).values(margin=1.0))
    page = client.get(f"/decisions/{answer['id']}")
    assert page.status_code == 200
    assert "What moves it" not in page.text


def test_without_its_version_a_decision_is_shown_without_contributions(
    client: FlaskClient, loan: Loan, store: Store, version_of: VersionOf
) -> None:
    answer = decide(client, loan)
    (store.root / "versions" / answer["model"]["version"]).rename(store.root / "gone")
    page = client.get(f"/decisions/{answer['id']}")
    assert page.status_code == 200
    assert "What moves it" not in page.text
    assert "annual_inc" in page.text, "the names as they were given"


def test_outcomes_and_corrections_are_shown(client: FlaskClient, loan: Loan) -> None:
    answer = decide(client, loan)
    for late in (True, False):
        told = {"outcomes": [{"id": answer["id"], "late": late}]}
        assert client.post("/v1/outcomes", json=told).status_code == 200
    text = text_of(client.get(f"/decisions/{answer['id']}").text)
    assert "Outcome on time" in text
    assert "late, later corrected" in text
    assert "on time" in text_of(client.get("/decisions").text)


@pytest.mark.parametrize("name", ["0", "0" * 36, "01a22e99-3425-7ba3-85cb-4985c100f384"])
def test_a_decision_that_does_not_exist_is_not_found(client: FlaskClient, name: str) -> None:
    page = client.get(f"/decisions/{name}")
    assert page.status_code == 404
    assert "there is no decision" in page.text


def test_the_search_box_finds_decisions_versions_and_loans(
    client: FlaskClient, loan: Loan, store: Store
) -> None:
    answer = decide(client, loan, loan_id="a b")
    version = answer["model"]["version"]
    for text, address in [
        (answer["id"], f"/decisions/{answer['id']}"),
        (version, f"/models/{version}"),
        (" a b ", "/decisions?loan_id=a+b"),
    ]:
        found = client.get("/find", query_string={"q": text})
        assert (found.status_code, found.location) == (302, address)
    assert client.get("/find").location == "/decisions?loan_id="


def test_texts_of_a_loan_are_escaped(client: FlaskClient, loan: Loan) -> None:
    answer = decide(client, loan, loan_id="<script>alert(1)</script>", purpose="<b>x</b>")
    for address in ("/decisions", f"/decisions/{answer['id']}"):
        page = client.get(address).text
        assert "<script>alert" not in page
        assert "<b>x" not in page


def test_a_missing_value_is_shown_as_none(client: FlaskClient, loan: Loan) -> None:
    answer = decide(client, {**loan, "revol_util": None})
    text = text_of(client.get(f"/decisions/{answer['id']}").text)
    assert "Revolving utilization –" in text
