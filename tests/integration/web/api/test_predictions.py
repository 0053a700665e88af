"""The REST API through a real server: answers, errors, health, and its own description."""

from __future__ import annotations

import contextlib
import hashlib
import html
import http.client
import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.api import JSON, MB, Api, columns, loans, started
from helpers.apps import create_app
from helpers.paths import FORMATS
from helpers.ports import free_port
from helpers.service import Serve
from helpers.stores import VersionOf, champion_store
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.settings import Settings

PROBLEM = "application/problem+json"
BANDS = ["low", "medium", "high", "very high"]


@pytest.fixture(scope="module")
def scorecard(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service of the additive candidate."""
    yield from started(trained, tmp_path_factory.mktemp("additive"), "additive")


@pytest.fixture(scope="module")
def onnx(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service of the basic candidate."""
    yield from started(trained, tmp_path_factory.mktemp("basic"), "basic")


@pytest.fixture(scope="module")
def granian_untested(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service that takes the installed Flask and Granian for untested ones."""
    folder = tmp_path_factory.mktemp("granian")
    yield from started(trained, folder, "additive", server="granian-untested")


@pytest.fixture(scope="module")
def gunicorn_untested(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A service that takes the installed Flask and Gunicorn for untested ones."""
    folder = tmp_path_factory.mktemp("gunicorn")
    yield from started(trained, folder, "additive", server="gunicorn-untested")


@pytest.fixture(params=["scorecard", "onnx", "granian_untested", "gunicorn_untested"])
def api(request: pytest.FixtureRequest) -> Api:
    """Each of the services in turn."""
    service: Api = request.getfixturevalue(request.param)
    return service


def problem(answer: requests.Response, status: int) -> dict[str, Any]:
    """The problem details of an answer that must be an error of this status."""
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["Content-Type"] == PROBLEM
    body: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail"} <= set(body) <= {*_PROBLEM_KEYS}
    assert body["status"] == status
    assert all(isinstance(body[key], str) and body[key] for key in ("type", "title", "detail"))
    for error in body.get("errors", []):
        assert list(error) == ["loan", "field", "expected", "given"]
        assert all(isinstance(error[key], str) for key in ("field", "expected", "given"))
    return body


_PROBLEM_KEYS = ("type", "title", "status", "detail", "errors")


def with_raw(loan: dict[str, Any], field: str, raw: str) -> str:
    """A loan as JSON text in which one field's value is written as given."""
    marked = json.dumps(loan | {field: "@@"})
    return marked.replace('"@@"', raw)


def without_ids(prediction: dict[str, Any]) -> dict[str, Any]:
    """A prediction without what differs from one decision to the next."""
    return {key: value for key, value in prediction.items() if key != "id"}


# What an answer says


def test_one_loan_is_answered_by_one_prediction(api: Api, loan: dict[str, Any]) -> None:
    answer = api.post(loan)

    assert answer.headers["Content-Type"] == JSON
    body = answer.json()
    assert list(body) == [
        "id",
        "probability",
        "late",
        "threshold",
        "band",
        "reasons",
        "model",
        "warnings",
    ]
    assert isinstance(body["probability"], float)
    assert 0 < body["probability"] < 1
    assert round(body["probability"], 9) == body["probability"]
    assert isinstance(body["late"], bool)
    assert body["threshold"] == pytest.approx(0.0245, abs=1e-9)  # the late rate of the table
    assert body["band"] in BANDS
    assert 1 <= len(body["reasons"]) <= 4
    for reason in body["reasons"]:
        assert list(reason) == ["feature", "value", "contribution", "sentence"]
        assert reason["value"] == loan[reason["feature"]]
        assert reason["contribution"] > 0
        assert reason["sentence"].endswith(".")
    contributions = [reason["contribution"] for reason in body["reasons"]]
    assert contributions == sorted(contributions, reverse=True)
    assert body["model"] == {"version": api.version, "digest": api.bundle.digest}
    assert body["warnings"] == [
        "this model version was trained on the built-in sample: not for real decisions"
    ]


def test_a_list_and_columns_are_answered_in_order_and_alike(api: Api) -> None:
    batch = loans(30)

    as_list = api.many(batch)
    as_columns = api.many(columns(batch))
    singly = [api.one(loan) for loan in batch]

    assert [without_ids(each) for each in as_list] == [without_ids(each) for each in singly]
    assert [without_ids(each) for each in as_columns] == [without_ids(each) for each in singly]
    assert {each["model"]["digest"] for each in as_list} == {api.bundle.digest}


def test_the_clients_own_format_of_one_loan_is_columns_of_one(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    body = scorecard.one({name: [value] for name, value in loan.items()})

    assert list(body) == ["predictions"]
    assert [without_ids(each) for each in body["predictions"]] == [without_ids(scorecard.one(loan))]


@pytest.mark.parametrize(
    ("text", "where", "index"),
    [
        ('{LOAN, "grade": "A"}', "grade: ", None),
        ('[{LOAN}, {LOAN, "dti" : 3}]', "loan 1, dti: ", 1),
        ('{LOAN, "dti": NaN}', "dti: ", None),
        ('{"grade": ["A"], "dti": [3], "grade": ["B"]}', "grade: ", None),
        ('[{"a": {"x": 1}}, {LOAN, "dti": 3}]', "loan 1, dti: ", 1),
    ],
)
def test_a_name_that_stands_twice_is_refused(
    scorecard: Api, loan: dict[str, Any], text: str, where: str, index: int | None
) -> None:
    body = text.replace("LOAN", json.dumps(loan)[1:-1])
    found = problem(scorecard.post(body), 422)
    assert found["detail"] == f"{where}expected each name once, given 2 values"
    assert [(each["loan"], each["field"]) for each in found["errors"]] == [
        (index, where.split(", ")[-1].removesuffix(": "))
    ]


def test_a_text_that_looks_like_a_name_is_none(scorecard: Api, loan: dict[str, Any]) -> None:
    scorecard.one(loan | {"purpose": 'a": "b', "loan_id": '"dti" :'})


def test_no_loans_have_no_predictions(api: Api) -> None:
    assert api.one([]) == {"predictions": []}  # type: ignore[arg-type]
    assert api.one({name: [] for name in default_definition().names}) == {"predictions": []}


def test_ids_are_distinct_uuids_of_version_7_that_carry_the_time(scorecard: Api) -> None:
    before = int(time.time() * 1000)
    ids = [each["id"] for each in scorecard.many(loans(300))]
    after = int(time.time() * 1000)

    assert len(set(ids)) == 300
    for each in ids:
        made = uuid.UUID(each)
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        assert str(made) == each
        assert before <= made.int >> 80 <= after


def test_a_loan_id_is_echoed_as_text(scorecard: Api, loan: dict[str, Any]) -> None:
    assert scorecard.one(loan | {"loan_id": "L-1 ü"})["loan_id"] == "L-1 ü"
    assert scorecard.one(loan | {"loan_id": 17})["loan_id"] == "17"
    assert "loan_id" not in scorecard.one(loan | {"loan_id": None})
    batch = columns([loan | {"loan_id": name} for name in ("a", "b")])
    assert [each["loan_id"] for each in scorecard.many(batch)] == ["a", "b"]


@pytest.mark.parametrize("wrong", ["", 1.5, True, [1], "x" * 201, "a\nb"])
def test_a_loan_id_of_another_kind_is_refused(
    scorecard: Api, loan: dict[str, Any], wrong: object
) -> None:
    errors = problem(scorecard.post([loan | {"loan_id": wrong}]), 422)["errors"]

    assert [(error["loan"], error["field"]) for error in errors] == [(0, "loan_id")]


def test_base_and_contributions_are_the_margin_exactly(api: Api) -> None:
    batch = loans(40, seed=2)
    for each in [*api.many(batch, "?contributions=all"), api.one(batch[0], "?contributions=all")]:
        parts = list(each["contributions"].values())
        assert list(each["contributions"]) == list(default_definition().names)
        assert each["base"] + sum(parts) == each["margin"]
        assert each["base"] + sum(reversed(parts)) == each["margin"]
        assert api.bundle.policy.late(each["margin"]) == each["late"]
        expected = 1 / (1 + math.exp(-each["margin"]))
        assert each["probability"] == pytest.approx(expected, abs=6e-10)
        raising = sorted((c for c in parts if c > 0), reverse=True)[:4]
        assert [reason["contribution"] for reason in each["reasons"]] == raising


def test_reasons_and_contributions_are_left_out_on_demand(api: Api, loan: dict[str, Any]) -> None:
    plain = without_ids(api.one(loan))

    bare = api.one(loan, "?reasons=none")
    assert "reasons" not in bare
    assert without_ids(bare) == {key: plain[key] for key in plain if key != "reasons"}
    assert "contributions" not in api.one(loan, "?contributions=none")
    only = api.one(loan, "?reasons=none&contributions=all")
    assert "reasons" not in only
    assert only["contributions"]


def test_a_what_if_is_scored_alike_but_has_no_id(api: Api, loan: dict[str, Any]) -> None:
    answer = api.one(loan, "?what_if=true")

    assert answer.pop("what_if") is True
    assert answer == without_ids(api.one(loan))
    assert all(
        each["what_if"] and "id" not in each for each in api.many([loan, loan], "?what_if=true")
    )
    assert "what_if" not in api.one(loan, "?what_if=false")
    problem(api.post(loan | {"dti": "x"}, "?what_if=true"), 422)


def test_decision_and_band_follow_from_probability_and_threshold(api: Api) -> None:
    seen = set()
    for each in api.many(loans(400, seed=3), "?reasons=none"):
        p, threshold = each["probability"], each["threshold"]
        seen.add(each["band"])
        assert each["late"] == (p >= threshold)
        ends = (threshold / 2, threshold, 2 * threshold)
        if all(abs(p - end) > 1e-8 for end in ends):
            assert each["band"] == BANDS[sum(p >= end for end in ends)]
    assert len(seen) >= 3


def test_an_unseen_category_and_an_unusual_number_are_warned_of(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    warnings = scorecard.one(loan | {"purpose": "credit_crad", "loan_amnt": 1_000_000})["warnings"]

    assert any("'credit_crad'" in each and "credit_card" in each for each in warnings)
    assert any("1,000,000 US dollars" in each and "outside" in each for each in warnings)


# Wrong parameters and values


@pytest.mark.parametrize(
    ("query", "expected", "given"),
    [
        ("?explain=1", "contributions, reasons, what_if, flips, lenient", "'1'"),
        ("?reasons=some", "all or none", "'some'"),
        ("?what_if=1", "true or false", "'1'"),
        ("?lenient=yes", "true or false", "'yes'"),
        ("?contributions=", "all or none", "''"),
        ("?reasons=all&reasons=none", "all or none", "'all' and 'none'"),
        ("?reasons=all&reasons=all", "all or none", "'all' and 'all'"),
        ("?what_if=1" + "&what_if=true" * 50, "true or false", "'1' and 'true' and 'true'"),
    ],
)
def test_an_unknown_wrong_or_repeated_parameter_is_refused(
    scorecard: Api, loan: dict[str, Any], query: str, expected: str, given: str
) -> None:
    (error,) = problem(scorecard.post(loan, query), 400)["errors"]

    assert error["field"] == query.partition("=")[0]
    assert expected in error["expected"]
    assert error["given"] == given


def test_every_wrong_field_of_every_loan_is_named_at_once(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    batch = [
        loan | {"dti": "14.46", "grade": "H"},
        loan,
        {name: value for name, value in loan.items() if name != "annual_inc"} | {"int_rate": 13.06},
        "no loan",
    ]

    body = problem(scorecard.post(batch), 422)

    found = {(error["loan"], error["field"]): error for error in body["errors"]}
    assert list(found) == [
        (0, "grade"),
        (0, "dti"),
        (2, "int_rate"),
        (2, "annual_inc"),
        (3, "(loan)"),
    ]
    assert found[0, "dti"]["given"] == "'14.46'"
    assert "at least 0" in found[0, "dti"]["expected"]
    assert "'A', 'B'" in found[0, "grade"]["expected"]
    assert "0.1306 for 13.06 %" in found[2, "int_rate"]["expected"]
    assert found[2, "int_rate"]["given"] == "13.06"
    assert found[2, "annual_inc"]["given"] == "nothing"
    assert "loan 0, grade" in body["detail"]
    assert "4 more" in body["detail"]


def test_the_index_of_a_single_loan_is_null(scorecard: Api, loan: dict[str, Any]) -> None:
    (error,) = problem(scorecard.post(loan | {"dti": -1}), 422)["errors"]

    assert error["loan"] is None


def test_an_unknown_field_names_the_nearest_known_one(scorecard: Api, loan: dict[str, Any]) -> None:
    (error,) = problem(scorecard.post(loan | {"anual_inc": 1}), 422)["errors"]
    assert error["field"] == "anual_inc"
    assert "did you mean annual_inc?" in error["expected"]

    (error,) = problem(scorecard.post(loan | {"colour_of_hair": 1}), 422)["errors"]
    assert error["field"] == "colour_of_hair"


def test_two_different_ids_of_one_loan_are_refused(tmp_path: Path) -> None:
    client = lenders_client(tmp_path)
    one = {"income.monthly": 2000, "rating": "A", "loan_id": "K-1"}

    for body, index in (
        (one | {"contract no.": "K-2"}, None),
        ([one | {"contract no.": "K-2"}], 0),
    ):
        answer = client.post("/v1/predictions", data=json.dumps(body), content_type=JSON)
        assert answer.status_code == 422
        assert json.loads(answer.data)["errors"] == [
            {
                "loan": index,
                "field": "contract no.",
                "expected": "the loan's one id, which is 'K-1' already",
                "given": "'K-2'",
            }
        ]
    same = client.post("/v1/predictions", json=one | {"contract no.": "K-1"})
    assert json.loads(same.data)["loan_id"] == "K-1"


def lenders_client(folder: Path) -> FlaskClient:
    """The application with another lender's version, whose loans have an id of their own."""
    shutil.copytree(FORMATS / "format-1-scorecard", folder / "store" / "versions")
    store = Store(folder / "store")
    store.promote(store.versions()[0])
    return create_app(Settings(store.root), on_loopback=True).test_client()


def test_the_label_is_no_field_of_a_request(scorecard: Api, loan: dict[str, Any]) -> None:
    (error,) = problem(scorecard.post(loan | {"is_late": 0}), 422)["errors"]

    assert error["field"] == "is_late"
    assert "label" in error["expected"]


@pytest.mark.parametrize(
    "raw",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        '"\\ud800"',
        '"\\u0000"',
        "1" + "0" * 400,
        "true",
        "null",
        '"14.46"',
        "{}",
        '{"a": 1}',
        "-1",
    ],
)
def test_what_is_no_number_is_refused_by_name(
    scorecard: Api, loan: dict[str, Any], raw: str
) -> None:
    (error,) = problem(scorecard.post(with_raw(loan, "dti", raw)), 422)["errors"]

    assert error["field"] == "dti"
    assert "a number (% of monthly income), at least 0" in error["expected"]
    assert len(error["given"]) < 100


@pytest.mark.parametrize(
    "raw", ["NaN", '"\\ud800"', '"\\u0000"', '"a\\u0085b"', '""', "1", "true", "null", "{}"]
)
@pytest.mark.parametrize("field", ["purpose", "grade"])
def test_what_is_no_text_is_refused_by_name(
    scorecard: Api, loan: dict[str, Any], field: str, raw: str
) -> None:
    (error,) = problem(scorecard.post(with_raw(loan, field, raw)), 422)["errors"]

    assert error["field"] == field


@pytest.mark.parametrize(("raw", "shown"), [("null", "null"), ("true", "true"), ("false", "false")])
def test_what_was_given_is_written_as_in_json(
    scorecard: Api, loan: dict[str, Any], raw: str, shown: str
) -> None:
    (error,) = problem(scorecard.post(with_raw(loan, "dti", raw)), 422)["errors"]

    assert error["given"] == shown


@pytest.mark.parametrize("raw", ["1.5", "true", '"1"', "-1", "1e400"])
def test_a_count_is_a_whole_number(scorecard: Api, loan: dict[str, Any], raw: str) -> None:
    (error,) = problem(scorecard.post(with_raw(loan, "delinq_2yrs", raw)), 422)["errors"]

    assert error["field"] == "delinq_2yrs"
    assert error["expected"].startswith("a whole number, at least 0")
    scorecard.one(loan | {"delinq_2yrs": 2.0})


def test_a_name_that_is_no_text_is_named_escaped(scorecard: Api, loan: dict[str, Any]) -> None:
    for name in ("\ud800", "a\0b"):
        for body in (loan | {name: 1}, [loan | {name: 1}]):
            (error,) = problem(scorecard.post(body), 422)["errors"]
            assert error["field"] == ascii(name)


def test_a_whole_number_of_thousands_of_digits_is_a_wrong_value(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    digits = "1" + "0" * 4_999
    for raw in (digits, f"-{digits}"):
        for field in ("dti", "delinq_2yrs", "purpose", "grade", "loan_id"):
            body = with_raw(loan, field, raw)
            for sent, index in ((body, None), (f"[{body}]", 0)):
                (error,) = problem(scorecard.post(sent), 422)["errors"]
                assert (error["loan"], error["field"]) == (index, field)
                assert len(error["given"]) < 100


def test_unknown_and_lacking_columns_are_named_once_and_not_for_each_loan(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    for count in (0, 1, 500):
        batch = {name: [value] * count for name, value in loan.items() if name != "annual_inc"}
        del batch["emp_length"]  # which may be missing
        body = problem(scorecard.post(batch | {"anual_inc": [1] * count}), 422)
        assert body["errors"] == [
            {
                "loan": None,
                "field": "anual_inc",
                "expected": "a field of the loan (did you mean annual_inc?)",
                "given": "such a column",
            },
            {
                "loan": None,
                "field": "annual_inc",
                "expected": default_definition()["annual_inc"].expected,
                "given": "nothing",
            },
        ]


def test_one_empty_column_lacks_the_others(scorecard: Api) -> None:
    errors = problem(scorecard.post({"loan_amnt": []}), 422)["errors"]

    assert {error["loan"] for error in errors} == {None}
    assert [error["field"] for error in errors] == [
        field.name
        for field in default_definition().fields
        if field.name != "loan_amnt" and not field.missing
    ]


def test_uneven_columns_are_named(scorecard: Api, loan: dict[str, Any]) -> None:
    even = columns([loan, loan])

    (error,) = problem(scorecard.post(even | {"dti": [1, 2, 3]}), 422)["errors"]
    assert (error["loan"], error["field"], error["given"]) == (None, "dti", "3 values")
    assert error["expected"] == "a list of 2 values, as in the other columns"
    (error,) = problem(scorecard.post(columns([loan]) | {"dti": []}), 422)["errors"]
    assert error["expected"] == "a list of 1 value, as in the other columns"
    (error,) = problem(scorecard.post(even | {"dti": 5}), 422)["errors"]
    assert (error["field"], error["given"]) == ("dti", "5")
    for name in ("\ud800", "a\0b"):
        errors = problem(scorecard.post(even | {name: [1]}), 422)["errors"]
        assert [error["field"] for error in errors] == [ascii(name)] * 2, "unknown, and uneven"
    del even["grade"]
    errors = problem(scorecard.post(even | {"dti": [1], "dtii": [1, 2]}), 422)["errors"]
    assert [error["field"] for error in errors] == ["dtii", "grade", "dti"], "all at once"


def test_a_loan_with_a_list_as_one_value_is_a_loan_with_one_wrong_value(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    (error,) = problem(scorecard.post(loan | {"dti": [14.46]}), 422)["errors"]

    assert (error["field"], error["given"]) == ("dti", "[14.46]")


# Unreadable bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b'{"dti": 1,}',
        b"{'dti': 1}",
        b"\xff\xfe\x00",
        '{"dti": 1}'.encode("utf-16"),
        '{"dti": 1}'.encode("utf-16-le"),
        '{"dti": 1}'.encode("utf-32"),
        b'{"purpose": "\xe4"}',
        b'{"purpose": "\xed\xa0\x80"}',
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b"null",
        b"1",
        b"NaN",
        b"true",
        b'"text"',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_an_unreadable_body_is_refused_in_a_sentence(scorecard: Api, body: bytes) -> None:
    detail = problem(scorecard.post(body), 400)["detail"]

    assert len(detail) < 300


def test_any_depth_of_nesting_is_an_error_of_the_request(trained: Path, tmp_path: Path) -> None:
    client = create_app(
        Settings(champion_store(trained, tmp_path, "additive").root), on_loopback=True
    ).test_client()
    # The parser's limit and that of showing what was given are not the same depth.
    for depth in (1, 2, 50, 500, *range(800, 1010, 2), 3_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            nested = opening * depth + "1" + closing * depth
            for body in (f'[{{"dti":{nested}}}]', f'{{"a":1,"b":2,"dti":{nested}}}', f"[{nested}]"):
                answer = client.post("/v1/predictions", data=body, content_type=JSON)
                assert answer.status_code in (400, 422), (depth, opening, answer.text[:300])


def test_a_byte_order_mark_is_passed_over(scorecard: Api, loan: dict[str, Any]) -> None:
    scorecard.one(b"\xef\xbb\xbf" + json.dumps(loan).encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "text/json", "a" * 300]
)
def test_another_type_of_body_is_refused(
    scorecard: Api, loan: dict[str, Any], kind: str | None
) -> None:
    body = problem(scorecard.post(loan, content_type=kind), 415)

    given = "nothing" if kind is None else f"'{kind[:50]}"
    assert body["detail"].startswith(f"Content-Type: expected application/json, given {given}")


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.loan+json"]
)
def test_json_may_have_parameters_and_a_suffix(
    scorecard: Api, loan: dict[str, Any], kind: str
) -> None:
    assert scorecard.post(loan, content_type=kind).status_code == 200


def test_another_method_and_another_address_are_problems_too(scorecard: Api) -> None:
    answer = scorecard.get("/v1/models/x/promote")
    problem(answer, 405)
    assert "POST" in answer.headers["Allow"]
    problem(scorecard.get("/v1/nothing"), 404)
    problem(requests.delete(f"{scorecard.url}/healthz", timeout=5), 405)
    page = scorecard.get("/nothing")
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")


# Many loans


def test_ten_thousand_loans_are_answered_and_one_more_is_not(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    few = {"loan_amnt": 12000} | loan
    assert len(scorecard.many([few] * 10_000, "?reasons=none")) == 10_000
    assert len(scorecard.many(columns([few] * 10_000), "?reasons=none")) == 10_000

    for body in ([few] * 10_001, columns([few] * 10_001), [1] * 10_001):
        detail = problem(scorecard.post(body), 413)["detail"]
        assert "10,000" in detail
        assert "10,001" in detail


def test_five_megabytes_are_too_large_however_they_come(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    large = json.dumps([loan] * 100).encode() + b" " * (5 * MB)

    def parts() -> Iterator[bytes]:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    url = f"{scorecard.url}/v1/predictions"
    headers = {"Content-Type": JSON}
    for body in (large, parts()):
        answer = requests.post(url, data=body, headers=headers, timeout=20)
        assert "5 MB" in problem(answer, 413)["detail"]
    for within in (large[: 5 * MB], iter([large[: 5 * MB]])):
        answer = requests.post(url, data=within, headers=headers, timeout=20)
        assert len(answer.json()["predictions"]) == 100


def test_a_body_that_is_announced_as_too_large_is_refused_before_it_is_sent(
    scorecard: Api,
) -> None:
    connection = http.client.HTTPConnection(scorecard.url.removeprefix("http://"), timeout=8)
    connection.putrequest("POST", "/v1/predictions")
    connection.putheader("Content-Type", JSON)
    connection.putheader("Content-Length", str(10**12))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["status"] == 413
    connection.close()


def test_a_client_that_sends_everything_first_reads_why_it_is_too_large(scorecard: Api) -> None:
    for size in (5 * MB + 1, 20 * MB):
        connection = http.client.HTTPConnection(scorecard.url.removeprefix("http://"), timeout=20)
        connection.request("POST", "/v1/predictions", b" " * size, {"Content-Type": JSON})
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (413, PROBLEM)
        assert "5 MB" in json.loads(answer.read())["detail"]
        connection.close()


# Bodies that arrive badly


THREADS = 4
HALF = {
    "by length": b"Content-Length: 100\r\n\r\n{",
    "in chunks": b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    "between chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
}


def send_raw(url: str, rest: bytes) -> socket.socket:
    """Send a request for predictions, of which `rest` is its last headers and its body."""
    host, _, port = url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    head = f"POST /v1/predictions HTTP/1.1\r\nHost: {host}\r\nContent-Type: {JSON}\r\n"
    connection.sendall(head.encode() + rest)
    return connection


def read_raw(connection: socket.socket) -> tuple[int, Message, dict[str, Any]]:
    """The status, headers and problem that a raw request is answered with."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, answer.headers, json.loads(answer.read())


@pytest.mark.parametrize(
    "body", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n", b"\r\n\r\n"]
)
def test_chunks_that_can_not_be_read_are_refused_in_a_sentence(
    scorecard: Api, loan: dict[str, Any], body: bytes
) -> None:
    connection = send_raw(scorecard.url, b"Transfer-Encoding: chunked\r\n\r\n" + body)
    status, headers, found = read_raw(connection)
    # What came before them may be JSON, if of no loan.
    assert status in (400, 422)
    assert headers["Content-Type"] == PROBLEM
    assert found["detail"]
    connection.close()
    scorecard.one(loan)


@pytest.fixture
def impatient(store: Store, version_of: VersionOf, tmp_path: Path) -> Iterator[str]:
    """A service under Gunicorn that waits one second for a client that says nothing."""
    store.promote(version_of("additive"))
    port = free_port()
    code = (
        "from peerloan.web.server import gunicorn_worker; gunicorn_worker.SILENT_SECONDS = 1; "
        "from gunicorn.app.wsgiapp import run; run()"
    )
    options = ["-c", "python:peerloan.service.gunicorn_conf", "--workers", "1"]
    options += ["--threads", str(THREADS)]
    application = "peerloan.service.wsgi:application()"
    environment = os.environ | {"PEERLOAN_STORE": str(store.root)}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *options, "--bind", f"127.0.0.1:{port}", application],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_clients_that_stop_half_way_are_told_and_do_not_keep_the_others_waiting(
    impatient: str, loan: dict[str, Any]
) -> None:
    halves = [send_raw(impatient, rest) for rest in HALF.values() for _ in range(THREADS)]

    answer = requests.post(f"{impatient}/v1/predictions", json=loan, timeout=20)
    assert answer.status_code == 200
    # Nor once they have been told.
    for _ in range(20):
        assert requests.get(f"{impatient}/healthz", timeout=10).status_code == 200
        time.sleep(0.1)

    for connection in halves:
        status, headers, found = read_raw(connection)
        assert (status, headers["Content-Type"]) == (408, PROBLEM)
        assert (found["status"], found["detail"]) == (408, "the body did not arrive in time")
        connection.close()


def test_a_slow_body_that_keeps_coming_is_read(impatient: str, loan: dict[str, Any]) -> None:
    body = json.dumps(loan).encode()

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(body), len(body) // 4):
            yield body[start : start + len(body) // 4]
            time.sleep(0.4)

    answer = requests.post(
        f"{impatient}/v1/predictions", data=slowly(), headers={"Content-Type": JSON}, timeout=20
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        # Each was minutes of work, or a gigabyte.
        lambda: json.dumps({f"a{i}": [1] * (i % 7) for i in range(150_000)}),
        lambda: '{"dti": [' + "1," * 2_400_000 + "1]}",
        lambda: json.dumps([{}] * 10_000),
        lambda: json.dumps({f"a{i}": 1 for i in range(250_000)}),
        lambda: json.dumps({f"a{i}": [1] * 10_000 for i in range(160)}),
        lambda: json.dumps([{f"a{i}": 1 for i in range(700)}] * 500),
        lambda: '[{"a":1,"a":1},' + "{}," * 1_600_000 + "{}]",
        lambda: '{"dti":1,"dti":[' + "{}," * 1_600_000 + "{}]}",
        lambda: "[" + '{"a":1,"a":2},' * 330_000 + "{}]",
    ],
    ids=[
        "many columns",
        "one long column",
        "many empty loans",
        "many unknown fields",
        "many unknown columns of many loans",
        "many unknown fields of many loans",
        "a repeated name and many empty loans",
        "a repeated name and many empty objects",
        "many loans with a repeated name",
    ],
)
def test_no_body_within_the_limits_keeps_the_server_busy(
    scorecard: Api, body: Callable[[], str]
) -> None:
    assert scorecard.post(body()).status_code in (413, 422)


def test_up_to_a_hundred_loans_all_have_reasons(onnx: Api) -> None:
    body = onnx.one(loans(100, seed=4))  # type: ignore[arg-type]

    assert list(body) == ["predictions"]
    assert all(isinstance(each["reasons"], list) for each in body["predictions"])


def test_a_longer_list_has_reasons_up_to_a_time_that_the_answer_states(onnx: Api) -> None:
    batch = loans(10_000, seed=5)
    body = onnx.one(batch)  # type: ignore[arg-type]

    limit = body["reasons_limit"]
    with_reasons = [isinstance(each["reasons"], list) for each in body["predictions"]]
    assert limit["seconds"] == 2.0
    assert with_reasons == [True] * limit["loans_with_reasons"] + [False] * (
        10_000 - limit["loans_with_reasons"]
    )
    assert 0 < limit["loans_with_reasons"] < 10_000
    assert all(each["reasons"] is None for each in body["predictions"][-10:])
    # Without reasons there is nothing to limit.
    plain = onnx.one(batch, "?reasons=none")  # type: ignore[arg-type]
    assert "reasons_limit" not in plain
    assert [each["probability"] for each in plain["predictions"]] == [
        each["probability"] for each in body["predictions"]
    ]


def test_a_scorecard_explains_every_loan_of_a_long_list(scorecard: Api) -> None:
    body = scorecard.one(loans(500, seed=6))  # type: ignore[arg-type]

    assert "reasons_limit" not in body
    assert all(isinstance(each["reasons"], list) for each in body["predictions"])


# Health


def test_without_a_champion_the_service_is_healthy_but_not_ready(
    store: Store, serve: Serve, loan: dict[str, Any]
) -> None:
    service = serve(store)

    assert requests.get(f"{service.url}/healthz", timeout=5).json() == {"status": "ok"}
    ready = requests.get(f"{service.url}/readyz", timeout=5)
    assert (ready.status_code, ready.json()) == (
        503,
        {"status": "waiting for a champion", "ledger": "available"},
    )
    for answer in (
        requests.post(f"{service.url}/v1/predictions", json=loan, timeout=5),
        requests.get(f"{service.url}/openapi.json", timeout=5),
    ):
        assert problem(answer, 503)["detail"] == (
            "No model version is being served yet; train one and promote it."
        )
        assert int(answer.headers["Retry-After"]) > 0

    store.promote(store.versions()[0])
    service.wait_for(lambda: service.serving() == store.versions()[0], seconds=2)
    assert requests.post(f"{service.url}/v1/predictions", json=loan, timeout=5).status_code == 200


def test_started_on_a_champion_that_cannot_load_it_is_unhealthy_until_repaired(
    store: Store, serve: Serve, version_of: VersionOf
) -> None:
    version = version_of("additive")
    store.promote(version)
    file = store.root / "versions" / version / "scorecard.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    service = serve(store)

    health = requests.get(f"{service.url}/healthz", timeout=5)
    assert health.status_code == 503
    assert health.json() == {"status": "unhealthy"}
    ready = requests.get(f"{service.url}/readyz", timeout=5)
    assert ready.status_code == 503
    assert ready.json()["status"] == "champion refused"
    assert "scorecard.json" in ready.json()["refused"]
    refused = problem(requests.post(f"{service.url}/v1/predictions", json={}, timeout=5), 503)
    said = "No model version is being served yet; the champion was refused"
    assert refused["detail"] == f"{said}: {ready.json()['refused']}."
    assert "scorecard.json" in requests.get(service.url, timeout=5).text

    file.write_bytes(whole)
    service.wait_for(lambda: service.serving() == version, seconds=8)
    assert requests.get(f"{service.url}/healthz", timeout=5).json() == {"status": "ok"}
    assert "refused" not in requests.get(f"{service.url}/readyz", timeout=5).json()


def test_ready_names_the_version_and_its_digest(api: Api) -> None:
    answer = api.get("/readyz")

    assert answer.status_code == 200
    model = {"version": api.version, "digest": api.bundle.digest}
    assert answer.json() == {"status": "ready", "model": model, "ledger": "available"}


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/openapi.json", "/v1/nothing", "/nothing", "/static/peerloan.css"]
)
def test_every_answer_has_the_security_headers(scorecard: Api, path: str) -> None:
    headers = scorecard.get(path).headers

    policy = dict(
        part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";")
    )
    assert policy["default-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert policy["frame-ancestors"] == policy["object-src"] == policy["base-uri"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    kept = path.startswith("/static") or path == "/openapi.json"
    assert ("no-store" not in headers["Cache-Control"]) == kept


def test_what_a_page_links_to_is_named_by_its_content_and_kept_for_good(scorecard: Api) -> None:
    page = scorecard.get("/").text
    links = re.findall(r'(?:href|src)="(/[^"]*static/[^"]+)"', page)

    assert any("bootstrap" in link for link in links)
    for link in links:
        answer = scorecard.get(html.unescape(link))
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).hexdigest().startswith(link.rpartition("?v=")[2])
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("query", ["", "?v=", "?v=0123456789ab"])
def test_a_file_asked_for_by_another_content_is_not_kept(scorecard: Api, query: str) -> None:
    answer = scorecard.get(f"/static/peerloan.css{query}")

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-cache"


def test_a_file_that_is_not_there_is_not_kept(scorecard: Api) -> None:
    answer = scorecard.get("/static/nothing.css?v=0123456789ab")

    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-store"


# The API's description of itself


def component(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    """A validator of one of the document's schemas."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    return jsonschema.Draft202012Validator(schema)


def test_openapi_is_whole(scorecard: Api, loan: dict[str, Any]) -> None:
    decision = scorecard.post(loan).json()["id"]
    answer = scorecard.get("/openapi.json")
    document = answer.json()

    assert answer.headers["Content-Type"] == JSON
    assert document["openapi"].startswith("3.1.")
    assert document["info"]["title"]
    assert document["info"]["version"]
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    references = [part.partition('"')[0] for part in json.dumps(document).split('"$ref": "#/')[1:]]
    for reference in references:
        at: Any = document
        for key in reference.split("/"):
            at = at[key]
    for path, operations in document["paths"].items():
        assert path.startswith("/")
        for operation in operations.values():
            assert operation["responses"]
            assert all(each["description"] for each in operation["responses"].values())
            for parameter in operation.get("parameters", []):
                assert {"name", "in", "schema"} <= set(parameter)
    # What it says of itself is true.
    documented = document["paths"]["/v1/predictions"]["post"]["responses"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(documented)
    known = {"model": "late-payments", "version": scorecard.version, "decision": decision}
    for path in document["paths"]:
        if "get" in document["paths"][path]:
            named = path.format(**known)
            answer = scorecard.get(named)
            assert answer.status_code == 200


def test_the_description_changes_with_the_champion_and_so_does_its_tag(
    store: Store, version_of: VersionOf
) -> None:
    store.promote(version_of("additive"))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    first = client.get("/openapi.json")
    tag = first.headers["ETag"]
    again = client.get("/openapi.json", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    store.promote(version_of("basic"))
    client = create_app(Settings(store.root), on_loopback=True).test_client()
    other = client.get("/openapi.json", headers={"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["ETag"] != tag


def test_the_loan_schema_accepts_what_the_service_accepts(
    scorecard: Api, loan: dict[str, Any]
) -> None:
    document = scorecard.get("/openapi.json").json()
    schema = component(document, "Loan")
    good = [loan, *loans(30, seed=7), loan | {"loan_id": "x"}, loan | {"loan_id": 4}]
    bad: list[dict[str, Any]] = [
        {},
        *(
            {name: value for name, value in loan.items() if name != left}
            for left in ("dti", "grade")
        ),
        *(
            loan | change
            for change in (
                {"dti": "1"},
                {"dti": True},
                {"dti": None},
                {"dti": -1},
                {"int_rate": 13.06},
                {"loan_amnt": 0},
                {"grade": "H"},
                {"delinq_2yrs": 1.5},
                {"purpose": ""},
                {"purpose": "a\nb"},
                {"purpose": "x" * 201},
                {"is_late": 0},
                {"dtti": 1},
                {"loan_id": ""},
                {"loan_id": 1.5},
            )
        ),
    ]

    for record in good:
        assert schema.is_valid(record)
        assert scorecard.post(record).status_code == 200
    for record in bad:
        assert not schema.is_valid(record), record
        assert scorecard.post(record).status_code == 422, record
    request = document["paths"]["/v1/predictions"]["post"]["requestBody"]["content"][JSON]["schema"]
    whole = jsonschema.Draft202012Validator(request | {"components": document["components"]})
    for body in (loan, [loan], [], columns([loan, loan])):
        assert whole.is_valid(body)
    assert not whole.is_valid([{}])


def test_the_prediction_schema_accepts_real_answers(api: Api, loan: dict[str, Any]) -> None:
    document = api.get("/openapi.json").json()
    schema = document["paths"]["/v1/predictions"]["post"]["responses"]["200"]["content"][JSON]
    validator = jsonschema.Draft202012Validator(
        schema["schema"] | {"components": document["components"]}
    )
    for query in ("", "?contributions=all", "?reasons=none", "?what_if=true&contributions=all"):
        for body in (loan | {"loan_id": "x"}, [loan, loan | {"emp_length": None}]):
            validator.validate(api.one(body, query))  # type: ignore[arg-type]
    component(document, "Prediction").validate(api.one(loan))
    broken = api.one(loan)
    del broken["probability"]
    assert not component(document, "Prediction").is_valid(broken)
    validator.validate(api.one(loans(120), "?contributions=all"))  # type: ignore[arg-type]


def test_the_problem_schema_accepts_real_problems(scorecard: Api) -> None:
    validator = component(scorecard.get("/openapi.json").json(), "Problem")

    for answer in (scorecard.post([{}]), scorecard.post(b"{"), scorecard.post({}, "?x=1")):
        validator.validate(answer.json())


# Whatever is sent


@pytest.fixture(scope="module")
def client(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The application without a server."""
    store = champion_store(trained, tmp_path_factory.mktemp("client"), "additive")
    return create_app(Settings(store.root), on_loopback=True).test_client()


_any_text = st.text(st.characters(exclude_categories=()), max_size=8)
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | _any_text | st.sampled_from(["A", 1])
)
_names = st.sampled_from([*default_definition().names, "loan_id", "is_late"]) | _any_text
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=6),
    max_leaves=25,
)


def check_any_answer(client: FlaskClient, body: bytes) -> None:
    """A body of any kind is answered with JSON, and never with a fault of ours."""
    answer = client.post("/v1/predictions", data=body, content_type=JSON)

    assert answer.status_code in (200, 400, 413, 415, 422), answer.text
    found = json.loads(answer.data)
    assert isinstance(found, dict)
    if answer.status_code != 200:
        assert answer.content_type == PROBLEM
        assert found["status"] == answer.status_code


@given(_values)
@example({"\ud800": [1, 2], "dti": [1], "grade": [1]})
@example([{"loan_id": "\ud800"}])
def test_arbitrary_json_is_answered(client: FlaskClient, value: object) -> None:
    check_any_answer(client, json.dumps(value).encode())


@given(st.dictionaries(_names, _scalars, max_size=3))
def test_a_loan_with_arbitrary_values_is_answered(
    client: FlaskClient, changes: dict[str, object]
) -> None:
    (good,) = loans(1)
    check_any_answer(client, json.dumps(good | changes).encode())
    check_any_answer(client, json.dumps(columns([good | changes, good | changes])).encode())


@given(st.binary(max_size=60))
@example(b'{"\xff": 1}')
@example(b"\xef\xbb\xbf")
def test_arbitrary_bytes_are_answered(client: FlaskClient, body: bytes) -> None:
    check_any_answer(client, body)
