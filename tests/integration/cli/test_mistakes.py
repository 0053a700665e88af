"""Common mistakes of API clients: each response says what is expected and what to do."""

from __future__ import annotations

import bz2
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from helpers.apps import create_app
from helpers.stores import champion_store
from peerloan.loan import default_definition
from peerloan.settings import Settings
from peerloan.web.auth.tokens import Tokens
from peerloan.web.services import services_of

JSON = "application/json"
PROBLEM = "application/problem+json"
PREDICTIONS = "/v1/predictions"
OUTCOMES = "/v1/outcomes"
ACKNOWLEDGE = "/v1/events/7/acknowledge"
PROMOTE = "/v1/models/none/promote"
INFER = "/v2/models/late-payments/infer"
POSTED = (PREDICTIONS, OUTCOMES, ACKNOWLEDGE, PROMOTE, INFER)
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


@pytest.fixture(scope="module")
def client(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """An operator's client of a service with the additive version as champion."""
    folder = tmp_path_factory.mktemp("mistakes")
    store = champion_store(trained, folder)
    token = Tokens(folder / "tokens").new("newcomer", operator=True)
    client = create_app(Settings(store.root, folder / "tokens")).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def post(client: FlaskClient, path: str, content: Any, **headers: str) -> TestResponse:
    """POST JSON, or bytes as they are."""
    data = content if isinstance(content, bytes) else json.dumps(content)
    head = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, data=data, content_type=head.pop("Content-Type", JSON), headers=head)


def detail(answer: TestResponse, status: int) -> str:
    """The message of an error response with this status, in the format of its route."""
    assert answer.status_code == status, answer.text
    body = answer.json
    assert body is not None
    if answer.content_type == JSON:  # the Open Inference Protocol's errors
        return str(body["error"])
    assert answer.content_type == PROBLEM
    return str(body["detail"])


def columns(loan: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in loan.items()}


def body_of(path: str, loan: dict[str, Any]) -> tuple[Any, int]:
    """A valid body for a route, and the status of its response."""
    inputs = [
        {
            "name": n,
            "shape": [1],
            "datatype": "BYTES" if isinstance(v, str) else "FP64",
            "data": [v],
        }
        for n, v in loan.items()
    ]
    bodies: dict[str, tuple[Any, int]] = {
        PREDICTIONS: (loan, 200),
        OUTCOMES: ({"outcomes": []}, 200),
        ACKNOWLEDGE: ({"why": "a test"}, 404),
        PROMOTE: ({"why": "a test"}, 404),
        INFER: ({"inputs": inputs}, 200),
    }
    return bodies[path]


# Bodies that are not plain JSON


@pytest.mark.parametrize("path", POSTED)
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)],
)
def test_a_compressed_body_is_read_on_every_route(
    client: FlaskClient,
    loan: dict[str, Any],
    path: str,
    encoding: str,
    compress: Callable[[bytes], bytes],
) -> None:
    body, status = body_of(path, loan)
    content = compress(json.dumps(body).encode())
    assert post(client, path, content, Content_Encoding=encoding).status_code == status


@pytest.mark.parametrize("path", [path for path in POSTED if path != PROMOTE])
@pytest.mark.parametrize(
    ("name", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("bzip2", bz2.compress)],
)
def test_a_compressed_body_without_its_header_is_named(
    client: FlaskClient,
    loan: dict[str, Any],
    path: str,
    name: str,
    compress: Callable[[bytes], bytes],
) -> None:
    answer = post(client, path, compress(json.dumps(body_of(path, loan)[0]).encode()))
    assert f"given a body that begins like {name}" in detail(answer, 415)
    assert "Content-Encoding: " in detail(answer, 415)
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("path", POSTED)
def test_another_encoding_is_named_and_the_known_ones(client: FlaskClient, path: str) -> None:
    for encoding in ("br", "zstd", "gzip, gzip", "x" * 300):
        answer = post(client, path, b"\x1b", Content_Encoding=encoding)
        message = detail(answer, 415)
        assert message.startswith("Content-Encoding: expected gzip, deflate or none, given ")
        assert encoding[:50] in message
        assert answer.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("path", POSTED)
def test_a_compressed_body_has_the_limits_of_any_other(client: FlaskClient, path: str) -> None:
    answer = post(client, path, gzip.compress(bytes(200_000_000), 1), Content_Encoding="gzip")
    assert "larger than 5 MB" in detail(answer, 413)
    for content in (b"{}", gzip.compress(b"{}")[:-3], gzip.compress(b"{}") + b"x"):
        message = detail(post(client, path, content, Content_Encoding="gzip"), 400)
        assert "gzip" in message


def test_a_form_may_not_be_compressed(client: FlaskClient) -> None:
    for path in ("/", "/sign-in"):
        form = {"Content-Type": "application/x-www-form-urlencoded", "Accept": JSON}
        head = form | {"Content-Encoding": "gzip"}
        answer = client.post(path, data=gzip.compress(b"token=x"), headers=head)
        assert "expected none for a form" in detail(answer, 415)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"dti": None}', "line 1, column 9: expected null, given None"),
        (b'{"dti": True}', "line 1, column 9: expected true, given True"),
        (b'{"dti": undefined}', "expected null, given undefined"),
        (b"{'dti': 1}", "line 1, column 2: expected text in double quotes"),
        (b'{"dti": 1,\n}', "a comma before }"),
        (b"[{},]", "a comma before ]"),
        (b'{"dti": 1}\n{"dti": 2}', "line 2, column 1: there is more after its end"),
        (b'{"dti": 1', "it ends before it is complete"),
        (b'{"purpose": "car', "unterminated string"),
        (b"dti=1&grade=D", "it is a form"),
        (b'{"dti" 1}', "expected ':' delimiter, given '1}'"),
        ('{"dti": 1}'.encode("utf-16"), "UTF-16"),
        ('{"dti": 1}'.encode("utf-16-be"), "UTF-16"),
        (b'{"purpose": "caf\xe9"}', "byte 16 (0xe9) is not UTF-8"),
        (b"[" * 50_000, "nested too deep"),
    ],
    ids=lambda value: repr(value[:24]),
)
@pytest.mark.parametrize("path", [PREDICTIONS, OUTCOMES, INFER])
def test_invalid_json_gets_its_place_and_cause(
    client: FlaskClient, path: str, content: bytes, message: str
) -> None:
    answer = detail(post(client, path, content), 400)
    assert message in answer
    assert len(answer) < 300


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_get_a_json_response(client: FlaskClient, content: bytes) -> None:
    answer = post(client, PREDICTIONS, content)
    assert answer.status_code in (400, 413, 415, 422) or content.strip() == b"[]"
    assert answer.json is not None
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/csv", ""])
@pytest.mark.parametrize("path", [PREDICTIONS, OUTCOMES, ACKNOWLEDGE])
def test_another_type_says_which_header_to_send(client: FlaskClient, path: str, kind: str) -> None:
    answer = post(client, path, b"a=1", **{"Content-Type": kind})
    assert detail(answer, 415).endswith("send the body as JSON with that header")


def test_json_within_a_text_is_named(client: FlaskClient, loan: dict[str, Any]) -> None:
    assert "JSON within a text" in detail(post(client, PREDICTIONS, json.dumps(loan)), 400)


# Values


def errors(client: FlaskClient, body: Any) -> list[dict[str, Any]]:
    answer = post(client, PREDICTIONS, body)
    assert answer.status_code == 422, answer.text
    problem: dict[str, Any] = answer.json or {}
    return list(problem["errors"])


@pytest.mark.parametrize(
    ("field", "raw", "hint"),
    [
        ("loan_amnt", '"12000"', "(without quotes: 12000, or add ?lenient=true)"),
        ("loan_amnt", '" 12000.50 "', "(without quotes: 12000.5, or add ?lenient=true)"),
        ("loan_amnt", '"12,000"', "(without quotes: 12000, or add ?lenient=true)"),
        ("loan_amnt", '"$12,000"', "(without quotes: 12000, or add ?lenient=true)"),
        ("loan_amnt", '"twelve"', "(a number without quotes)"),
        ("loan_amnt", '"-5"', "(a number without quotes)"),
        ("int_rate", '"20.39%"', "(without quotes: 0.2039, or add ?lenient=true)"),
        ("int_rate", '"20.39 %"', "(without quotes: 0.2039, or add ?lenient=true)"),
        ("dti", '"14.46%"', "(without quotes: 14.46, or add ?lenient=true)"),
        ("delinq_2yrs", '"1.5"', "(a number without quotes)"),
        ("dti", "true", "(not true or false)"),
        ("dti", "NaN", "(JSON has no NaN: a missing value is null, and this field needs a value)"),
        ("dti", "-Infinity", "(JSON has no -Infinity: "),
        ("revol_util", "NaN", "(JSON has no NaN: a missing value is null, or add ?lenient=true)"),
        ("revol_util", "Infinity", "(JSON has no Infinity: a missing value is null)"),
        ("revol_util", '"NaN"', "(a missing value is null, or add ?lenient=true)"),
        ("revol_util", '""', "(a missing value is null, or add ?lenient=true)"),
        ("emp_length", '"null"', "(a missing value is null, or add ?lenient=true)"),
        ("emp_length", '""', "(a missing value is null, or add ?lenient=true)"),
        ("emp_length", '"10+ Years "', "(did you mean '10+ years'? Or add ?lenient=true)"),
        ("grade", '"d"', "(did you mean 'D'? Or add ?lenient=true)"),
        ("grade", "4", "(text in double quotes)"),
        ("purpose", "7", "(seen in training: "),
    ],
)
def test_a_wrong_value_says_what_to_send_instead(
    client: FlaskClient, loan: dict[str, Any], field: str, raw: str, hint: str
) -> None:
    one = json.dumps(loan | {field: "@@"}).replace('"@@"', raw)
    listed = json.dumps(columns(loan) | {field: ["@@"]}).replace('"@@"', raw)
    for body in (one, f"[{one}]", listed):
        (error,) = errors(client, body.encode())
        assert error["field"] == field
        assert hint in error["expected"]
        answer = post(client, PREDICTIONS, body.encode())
        assert f"{field}: expected {error['expected']}, given {error['given']}" in answer.text


@pytest.mark.parametrize("raw", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_shown_as_they_were_written(
    client: FlaskClient, loan: dict[str, Any], raw: str
) -> None:
    (error,) = errors(client, json.dumps(loan | {"dti": float(raw)}).encode())
    assert error["given"] == raw


def test_a_missing_field_of_levels_names_the_levels(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    for field in default_definition().fields:
        if field.is_number or field.missing:
            continue
        without = {name: value for name, value in loan.items() if name != field.name}
        for body in (without, [without], columns(without), loan | {field.name: None}):
            (error,) = errors(client, body)
            assert error["field"] == field.name
            levels = field.levels
            if field.kind == "category":
                model = services_of(client.application).serving_models.current
                assert model is not None
                levels = model.bundle.definition[field.name].seen_levels[:20]
            assert levels
            assert all(repr(level) in error["expected"] for level in levels)


@pytest.mark.parametrize("spell", [str.upper, str.title, lambda name: name.replace("_", "-")])
def test_another_spelling_of_a_name_is_recognised(
    client: FlaskClient, loan: dict[str, Any], spell: Callable[[str], str]
) -> None:
    renamed = {spell(name): value for name, value in loan.items()}
    for body in (renamed, columns(renamed)):
        missing = {
            e["field"]: e["expected"] for e in errors(client, body) if e["given"] == "nothing"
        }
        for name in ("loan_amnt", "int_rate"):
            assert f"(rename {spell(name)!r} to {name!r}" in missing[name]


# Formats of other servers


def test_the_format_of_another_server_is_named_with_what_to_send(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    split = {"columns": list(loan), "data": [list(loan.values())]}
    records = 'df.to_json(orient="records")'
    tensor = {"name": "dti", "shape": [1], "datatype": "FP64", "data": [1]}
    for body, field, format_name, remedy in (
        (
            {"instances": [loan]},
            "instances",
            "KServe version 1",
            "the list under instances, as the body",
        ),
        ({"signature_name": "x", "instances": [loan]}, "instances", "MLflow", "under instances"),
        ({"instances": columns(loan)}, "instances", "MLflow", "the object under instances"),
        ({"dataframe_split": split}, "dataframe_split", "MLflow's", records),
        ({"dataframe_records": [loan]}, "dataframe_records", "MLflow's", "the list under"),
        ({"inputs": [loan]}, "inputs", "MLflow's", "the list under inputs, as the body"),
        ({"inputs": columns(loan)}, "inputs", "MLflow's", "the object under inputs, as the body"),
        ({"inputs": [tensor]}, "inputs", "the Open Inference Protocol", f"POST {INFER}"),
        (split, "columns", "pandas", records),
        (split | {"index": [0]}, "columns", "pandas", records),
        ({name: {"0": value} for name, value in loan.items()}, "loan_amnt", "pandas", records),
        ({"loan": loan}, "loan", "loans under a name", "the object under loan, as the body"),
        (
            {"data": [loan], "id": 3},
            "data",
            "loans under a name",
            "the list under data, as the body",
        ),
        (
            {"0": loan, "1": loan},
            "0",
            "loans under a name",
            "the values of all names as one list of loans",
        ),
    ):
        (error,) = errors(client, body)
        assert error["field"] == field
        assert format_name in error["given"]
        assert remedy in error["expected"]
        assert remedy in detail(post(client, PREDICTIONS, body), 422)


def test_a_loan_with_wrong_fields_is_not_taken_for_another_format(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    for body in (loan | {"instances": [loan]}, loan | {"dti": {"0": 1}}, {"unknown": 1}, {}):
        assert (post(client, PREDICTIONS, body).json or {})["title"] == "Wrong Values"


# Addresses and methods


@pytest.mark.parametrize(
    ("method", "path", "near"),
    [
        ("POST", "/predict", PREDICTIONS),
        ("POST", "/predictions", PREDICTIONS),
        ("POST", "/v1/predictions/", PREDICTIONS),
        ("POST", "/V1/Predictions", PREDICTIONS),
        ("POST", "/v1/models/none/promote/", PROMOTE),
        ("GET", "/health", "/healthz"),
        ("GET", "/openapi.yaml", "/openapi.json"),
        ("POST", f"{INFER}/", INFER),
    ],
)
def test_a_misspelt_address_names_the_nearest(
    client: FlaskClient, method: str, path: str, near: str
) -> None:
    answer = client.open(path, method=method, headers={"Accept": JSON})
    assert f"Did you mean {near}?" in detail(answer, 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("PUT", PREDICTIONS, "GET or POST"), ("GET", OUTCOMES, "POST"), ("POST", "/docs", "GET")],
)
def test_another_method_names_those_that_are_allowed(
    client: FlaskClient, method: str, path: str, allowed: str
) -> None:
    answer = client.open(path, method=method, headers={"Accept": JSON})
    assert detail(answer, 405) == f"Expected {allowed} at this address, given {method}."


def test_the_address_of_another_server_leads_to_the_predictions(
    client: FlaskClient, loan: dict[str, Any]
) -> None:
    answer = post(client, "/v1/models/late-payments:predict", {"instances": [loan]})
    assert detail(answer, 405).endswith(f"Send loans to POST {PREDICTIONS}.")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Bearer none", "given an unknown token"),
        ("peerloan_token", "given one that does not begin with Bearer"),
        ("Basic YTpi", "given one that does not begin with Bearer"),
    ],
)
def test_a_wrong_authorization_gets_its_cause(
    client: FlaskClient, header: str, message: str
) -> None:
    answer = client.get("/v1/models", headers={"Authorization": header})
    assert message in detail(answer, 401)
    assert "Authorization: Bearer" in detail(answer, 401)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/predict", 404), ("PUT", "/", 405), ("GET", "/x", 404)]
)
@pytest.mark.parametrize("signed_in", [True, False])
def test_a_program_gets_problem_details_and_a_person_a_page(
    client: FlaskClient, method: str, path: str, status: int, signed_in: bool
) -> None:
    status = status if signed_in else 401
    head = {} if signed_in else {"Authorization": "Bearer none"}
    for asked in ({"Accept": JSON}, {"Accept": PROBLEM}, {"Accept": "*/*", "Content-Type": JSON}):
        detail(client.open(path, method=method, headers=head | asked), status)
    for asked in (BROWSER, BROWSER | {"Content-Type": "application/x-www-form-urlencoded"}):
        answer = client.open(path, method=method, headers=head | asked)
        assert answer.status_code == status
        assert answer.content_type.startswith("text/html")


def test_json_for_the_page_leads_to_the_api(client: FlaskClient, loan: dict[str, Any]) -> None:
    assert f"POST {PREDICTIONS}" in detail(post(client, "/", loan), 415)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/none", "/v1/predictions/none"])
def test_an_unknown_parameter_is_refused(client: FlaskClient, path: str) -> None:
    problem = detail(client.get(f"{path}?limit=1"), 400)
    assert "expected no query parameters, given 'limit'" in problem
