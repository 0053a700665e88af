"""The Open Inference Protocol through a real server: plain requests, errors, limits, versions."""

from __future__ import annotations

import base64
import gzip
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import requests

from helpers.api import MB, Api, columns, loans, started
from helpers.inference_protocol import INFER, LENGTH, in_binary, tensor, tensors
from helpers.probes import challenger_decisions, figures
from helpers.service import SERVERS, Serve
from helpers.stores import VersionOf
from peerloan import __version__
from peerloan.registry import Store

OUTPUTS = ("probability", "late", "band", "reasons", "id")


@pytest.fixture(scope="module", params=SERVERS)
def api(
    trained: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Api]:
    """A service whose champion is a scorecard and whose challenger is a forest."""
    folder = tmp_path_factory.mktemp("protocol")
    yield from started(trained, folder, "additive", "basic", server=request.param)


def post(api: Api, body: Any, path: str = INFER, **headers: str) -> requests.Response:
    """POST a body: bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.session.post(f"{api.url}{path}", data=content, headers=named, timeout=30)


def decided(answer: requests.Response) -> dict[str, list[Any]]:
    """The outputs of an answer in JSON that must be one of decisions."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert LENGTH not in answer.headers
    found = {}
    for output in answer.json()["outputs"]:
        assert output["shape"] == [len(output["data"]), 1]
        found[output["name"]] = output["data"]
    if "reasons" in found:
        found["reasons"] = [json.loads(text) for text in found["reasons"]]
    return found


def expected(api: Api, given: Any) -> dict[str, list[Any]]:
    """What the REST API says of the same loans, but for ids."""
    predictions = api.many(given)
    return {name: [each[name] for each in predictions] for name in OUTPUTS[:-1]}


def same(api: Api, answer: requests.Response, given: Any) -> None:
    """The answer holds the REST API's decisions, each with an id of its own."""
    found = decided(answer)
    assert list(found) == list(OUTPUTS)
    assert len(set(found.pop("id"))) == len(found["late"])
    assert found == expected(api, given)


def error(answer: requests.Response, status: int) -> str:
    """The sentence of an error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"]
    assert 0 < len(body["error"]) < 1500
    return str(body["error"])


# What an answer says


@pytest.mark.parametrize("count", [1, 7, 500])
def test_decisions_are_those_of_the_rest_api(api: Api, count: int) -> None:
    given = columns(loans(count, seed=count))
    same(api, post(api, {"inputs": tensors(given)}), given)
    flat = [each | {"shape": [count]} for each in tensors(given)]
    same(api, post(api, {"inputs": flat}), given)
    nested = [each | {"data": [[value] for value in each["data"]]} for each in tensors(given)]
    same(api, post(api, {"inputs": nested[::-1]}), given)
    body, length = in_binary(given)
    same(api, post(api, body, Inference_Header_Content_Length=str(length)), given)


def test_what_is_missing(api: Api, loan: dict[str, Any]) -> None:
    without = {name: v for name, v in loan.items() if name not in ("revol_util", "emp_length")}
    given = columns([without])
    same(api, post(api, {"inputs": tensors(given)}), given)
    for number, text in ((None, None), (math.nan, ""), (None, "")):
        more: dict[str, list[Any]] = {"revol_util": [number], "emp_length": [text]}
        answer = post(api, {"inputs": tensors(given) + tensors(more)})
        same(api, answer, given)
    # Of a data frame's column of nothing but gaps nobody can say what it would hold.
    inputs = [*tensors(given), tensor("emp_length", [None])]
    assert inputs[-1]["datatype"] == "FP64"
    same(api, post(api, {"inputs": inputs}), given)
    wrong = error(
        post(api, {"inputs": [*tensors(given)[1:], tensor("loan_amnt", [math.nan])]}), 400
    )
    assert wrong == "loan 0, loan_amnt: expected a number (US dollars), above 0, given null"


def test_numbers_may_come_as_integers_and_counts_as_floats(api: Api, loan: dict[str, Any]) -> None:
    given = columns([loan])
    for name, kind in (("loan_amnt", "UINT16"), ("delinq_2yrs", "FP64"), ("annual_inc", "INT32")):
        inputs = [
            each | {"datatype": kind} if each["name"] == name else each for each in tensors(given)
        ]
        same(api, post(api, {"inputs": inputs}), given)


def test_content_types_of_mlservers_clients(api: Api) -> None:
    given = columns(loans(3))
    inputs = tensors(given)
    for each in inputs:
        if each["name"] == "grade":
            each["parameters"] = {"content_type": "base64"}
            each["data"] = [base64.b64encode(v.encode()).decode() for v in each["data"]]
        if each["name"] in ("loan_amnt", "emp_length"):
            each["parameters"] = {"content_type": "pd_json"}
            each["datatype"] = "BYTES"
            each["data"] = [json.dumps(value) for value in each["data"]]
    answer = post(api, {"inputs": inputs, "parameters": {"content_type": "pd"}})
    same(api, answer, given)
    assert answer.json()["parameters"]["content_type"] == "pd"
    kinds = [output["parameters"]["content_type"] for output in answer.json()["outputs"]]
    assert kinds == ["np", "np", "str", "str", "str"]


def test_outputs_come_as_they_are_asked_for(api: Api) -> None:
    given = columns(loans(4))
    rest = expected(api, given)
    asked = [
        {"name": "late", "parameters": {"binary_data": False}},
        {"name": "band"},
        {"name": "probability", "parameters": {"binary_data": True}},
    ]
    body = {"inputs": tensors(given), "outputs": asked}
    answer = post(api, body)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    length = int(answer.headers[LENGTH])
    late, band, probability = json.loads(answer.content[:length])["outputs"]
    assert (late["data"], band["data"]) == (rest["late"], rest["band"])
    assert "data" not in probability
    assert probability["parameters"]["binary_data_size"] == 32
    assert np.frombuffer(answer.content[length:]).tolist() == rest["probability"]

    answer = post(api, body | {"parameters": {"binary_data_output": True}})
    length = int(answer.headers[LENGTH])
    late, band, probability = json.loads(answer.content[:length])["outputs"]
    size = band["parameters"]["binary_data_size"]
    assert late["data"] == rest["late"]
    assert size == sum(4 + len(text) for text in rest["band"])
    assert answer.content[length:][:4] == len(rest["band"][0]).to_bytes(4, "little")
    assert np.frombuffer(answer.content[length + size :]).tolist() == rest["probability"]


def test_the_answer_names_the_version_and_the_callers_id(api: Api, loan: dict[str, Any]) -> None:
    inputs = tensors(columns([loan]))
    answer = post(api, {"inputs": inputs, "id": "my – own"}).json()
    assert list(answer) == ["model_name", "model_version", "id", "parameters", "outputs"]
    head = (answer["model_name"], answer["model_version"], answer["id"])
    assert head == ("late-payments", api.version, "my – own")
    assert "id" not in post(api, {"inputs": inputs}).json()


def test_warnings_are_parameters_of_the_response(api: Api, loan: dict[str, Any]) -> None:
    given = columns([loan | {"purpose": f"new {i}"} for i in range(30)])
    warnings = post(api, {"inputs": tensors(given)}).json()["parameters"]["warnings"]
    assert "built-in sample" in warnings
    assert "purpose: 'new 0' was not seen in training" in warnings
    assert warnings.endswith("; and 21 more")


def test_reasons_that_a_time_limit_left_out_are_counted(api: Api) -> None:
    given = columns(loans(150))
    challenger = api.store.state().challenger
    path = f"/v2/models/late-payments/versions/{challenger}/infer"
    answer = post(api, {"inputs": tensors(given)}, path)
    explained = answer.json()["parameters"]["loans_with_reasons"]
    reasons = decided(answer)["reasons"]
    assert [each is not None for each in reasons] == [i < explained for i in range(150)]


def test_own_names_of_loans_are_taken(api: Api, loan: dict[str, Any]) -> None:
    given = columns([loan, loan])
    for names in (["a", "b"], [1, 2], [None, None]):
        inputs = [*tensors(given), tensor("loan_id", names)]
        same(api, post(api, {"inputs": inputs}), given)
    assert "loan_id" in error(
        post(api, {"inputs": [*inputs[:-1], tensor("loan_id", [1.5, 2])]}), 400
    )


def test_no_loans_are_no_decisions(api: Api, loan: dict[str, Any]) -> None:
    found = decided(post(api, {"inputs": [tensor(name, []) for name in loan]}))
    assert found == {name: [] for name in OUTPUTS}


# Errors


@pytest.mark.parametrize(
    ("field", "change", "said"),
    [
        ("dti", {"data": [-1]}, "loan 0, dti: expected a number (% of monthly income), at least 0"),
        ("grade", {"data": ["Z"]}, "loan 0, grade: expected one of 'A', 'B'"),
        ("dti", {"data": ["x"], "datatype": "BYTES"}, "dti: expected FP64 or INT64: a number"),
        ("dti", {"data": [True], "datatype": "BOOL"}, "given BOOL"),
        ("grade", {"data": [1]}, "grade: expected values of BYTES, given 1 for loan 0"),
        ("grade", {"data": [1], "datatype": "INT64"}, "grade: expected BYTES: one of 'A', 'B'"),
        ("delinq_2yrs", {"data": [1.5], "datatype": "FP64"}, "a whole number, at least 0"),
        ("dti", {"name": "dto"}, "dto: expected a field of the loan (did you mean dti?)"),
        ("dti", {"name": "grade"}, "expected each input once, given 'grade' twice"),
        ("dti", {"shape": [2]}, "dti: expected 2 values by its shape, given 1"),
        ("dti", {"shape": [1], "data": [1, 2]}, "dti: expected 1 value by its shape, given 2"),
        ("dti", {"shape": [2], "data": [1, 2]}, "dti: expected a list of 1 value, as in the other"),
        ("dti", {"datatype": "BF16"}, "Invalid enum value 'BF16'"),
        ("dti", {"data": [1e999], "datatype": "FP64"}, "loan 0, dti: expected a number"),
        ("dti", {"data": [10**400]}, "loan 0, dti: expected a number"),
        ("purpose", {"data": ["\ud800"]}, "loan 0, purpose: expected text"),
        ("purpose", {"data": ["x" * 300]}, "loan 0, purpose: expected text of 1 to 200"),
        ("dti", {"name": "\ud800"}, "'\\ud800': expected a field of the loan"),
        ("dti", {"name": "x" * 10_000}, "expected a field of the loan"),
        ("dti", {"datatype": "x" * 10_000}, "Invalid enum value"),
    ],
)
def test_a_wrong_input_is_named(
    api: Api, loan: dict[str, Any], field: str, change: dict[str, Any], said: str
) -> None:
    inputs = tensors(columns([loan]))
    inputs = [each | change if each["name"] == field else each for each in inputs]
    assert said in error(post(api, {"inputs": inputs}), 400)


def test_the_first_wrong_values_are_named_and_the_others_counted(api: Api) -> None:
    given = columns([each | {"dti": -1, "loan_amnt": 0} for each in loans(4)])
    said = error(post(api, {"inputs": tensors(given)}), 400)
    assert [part[:20] for part in said.split("; ")] == [
        "loan 0, loan_amnt: e",
        "loan 0, dti: expecte",
        "loan 1, loan_amnt: e",
        "and 5 more",
    ]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "can't be read as JSON"),
        (b"{}", "required field `inputs`"),
        ({"inputs": []}, "length >= 1"),
        ({"inputs": 1}, "Expected `array`, got `int`"),
        ({"inputs": [tensor("dti", [1])], "id": 7}, "$.id"),
        ({"inputs": [tensor("dti", [1])], "parameters": 7}, "$.parameters"),
        ({"inputs": [tensor("dti", [1])], "outputs": [{"name": "x"}]}, "given 'x'"),
        ({"inputs": [tensor("dti", [1])], "outputs": 2 * [{"name": "id"}]}, "given 'id'"),
        ({"inputs": [tensor("dti", [1])]}, "given nothing; and 4 more"),
    ],
)
def test_a_wrong_request_is_refused(api: Api, body: Any, said: str) -> None:
    assert said in error(post(api, body), 400)


@pytest.mark.parametrize("query", ["what_if=true", "reasons=none", "x", "x=1&x=2"])
def test_parameters_of_an_address_are_refused_and_nothing_is_decided(
    api: Api, loan: dict[str, Any], query: str
) -> None:
    body = {"inputs": tensors(columns([loan]))}
    (last,) = decided(post(api, body))["id"]
    for path in (INFER, INFER.replace("/infer", f"/versions/{api.version}/infer")):
        name = query.partition("=")[0]
        said = error(post(api, body, f"{path}?{query}"), 400)
        assert said == f"expected no query parameters, given '{name}'"
    newest = api.get("/v1/predictions?limit=1").json()["predictions"]
    assert [each["id"] for each in newest] == [last]


@pytest.mark.parametrize("given", ["x", "-1", "1.0", "999999", "9" * 5000, "²"])
def test_a_wrong_length_of_the_json_is_refused(api: Api, loan: dict[str, Any], given: str) -> None:
    body, _ = in_binary(columns([loan]))
    headers = {LENGTH: given.encode("latin-1")}
    answer = requests.post(f"{api.url}{INFER}", data=body, headers=headers, timeout=10)
    assert f"{LENGTH}: expected a number of bytes" in error(answer, 400)


def test_a_binary_body_that_is_cut_off_is_refused(api: Api, loan: dict[str, Any]) -> None:
    body, length = in_binary(columns([loan]))
    for end in (length, length + 5, len(body) - 1):
        answer = post(api, body[:end], Inference_Header_Content_Length=str(length))
        assert "expected" in error(answer, 400)
    assert "after the JSON" in error(
        post(api, body + b"x", Inference_Header_Content_Length=str(length)), 400
    )


@pytest.mark.parametrize("path", ["/v2/models/other", "/v2/models/late-payments/versions/7"])
@pytest.mark.parametrize("what", ["", "/ready", "/infer"])
def test_what_is_not_served_is_not_found(api: Api, path: str, what: str) -> None:
    call = api.session.post if what == "/infer" else api.session.get
    said = error(call(f"{api.url}{path}{what}", timeout=10), 404)
    if "versions" in path:
        challenger = api.store.state().challenger
        assert said == (
            f"expected a version that is being served, {api.version} or {challenger}, given '7'"
        )
    else:
        assert said == "expected the model late-payments, given 'other'"


def test_errors_have_the_protocols_form_wherever_they_come_from(api: Api) -> None:
    assert error(api.get("/v2/nothing"), 404).startswith("There is nothing at this address.")
    error(api.session.get(f"{api.url}{INFER}", timeout=10), 405)
    error(api.session.post(f"{api.url}/v2/health/live", timeout=10), 405)
    assert api.get("/v2x").headers["Content-Type"].startswith("text/html")


# Limits


def test_more_than_ten_thousand_loans_are_too_many(api: Api, loan: dict[str, Any]) -> None:
    given = columns([loan] * 10_001)
    body, length = in_binary(given)
    said = error(post(api, body, Inference_Header_Content_Length=str(length)), 413)
    assert said.startswith("expected at most 10,000 loans, given 10,001")
    body, length = in_binary({name: values[1:] for name, values in given.items()})
    assert post(api, body, Inference_Header_Content_Length=str(length)).status_code == 200


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_bodies_may_be_compressed_within_the_limit(
    api: Api, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    given = columns(loans(5))
    body, length = in_binary(given)
    headers = {"Content_Encoding": encoding, "Inference_Header_Content_Length": str(length)}
    same(api, post(api, compress(body), **headers), given)
    assert f"can't be decompressed as {encoding}" in error(post(api, body, **headers), 400)
    assert "not one complete" in error(post(api, compress(body)[:-3], **headers), 400)
    assert "not one complete" in error(post(api, compress(body) + b"x", **headers), 400)
    said = error(post(api, compress(bytes(200 * MB)), **headers), 413)
    assert said.startswith("The request is larger than 5 MB.")


def test_a_body_over_the_limit_or_of_another_encoding_is_refused(api: Api) -> None:
    error(post(api, bytes(5 * MB + 1)), 413)
    said = error(post(api, b"x", Content_Encoding="br"), 415)
    assert said == "Content-Encoding: expected gzip, deflate or none, given 'br'"


# Versions and health


def test_the_metadata_follow_from_the_definition(api: Api) -> None:
    assert api.get("/v2").json() == api.get("/v2/").json()
    assert api.get("/v2").json() == {
        "name": "peerloan",
        "version": __version__,
        "extensions": ["binary_tensor_data"],
    }
    metadata = api.get("/v2/models/late-payments").json()
    assert metadata["name"] == "late-payments"
    assert metadata["versions"] == [api.version, api.store.state().challenger]
    assert metadata["platform"] == "peerloan_scorecard"
    kinds = {"number": "FP64", "whole": "INT64", "category": "BYTES", "ordered": "BYTES"}
    for field, described in zip(api.bundle.definition.fields, metadata["inputs"], strict=True):
        assert described["name"] == field.name
        assert described["datatype"] == kinds[field.kind]
        assert described["shape"] == [-1, 1]
        assert described["parameters"]["expected"] == field.expected
        assert described["parameters"]["optional"] is field.missing
    assert [(each["name"], each["datatype"]) for each in metadata["outputs"]] == [
        ("probability", "FP64"),
        ("late", "BOOL"),
        ("band", "BYTES"),
        ("reasons", "BYTES"),
        ("id", "BYTES"),
    ]


def test_champion_and_challenger_are_served_by_version(api: Api) -> None:
    given = columns(loans(20))
    challenger = str(api.store.state().challenger)
    for version in (api.version, challenger):
        path = f"/v2/models/late-payments/versions/{version}"
        assert api.get(f"{path}/ready").json() == {"name": "late-payments", "ready": True}
        assert api.get(path).json()["versions"] == [api.version, challenger]
        answer = post(api, {"inputs": tensors(given)}, f"{path}/infer")
        assert answer.json()["model_version"] == version
        bundle = api.store.load(version)
        rows = zip(*(given[name] for name in bundle.definition.names), strict=True)
        own = [
            bundle.decide([float(v) if isinstance(v, int) else v for v in row], explain=False)
            for row in rows
        ]
        assert decided(answer)["probability"] == [each.probability for each in own]


def test_a_version_that_was_replaced_is_served_no_more(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(first)
    service = serve(store)
    store.promote(second, breaking=True)
    service.wait_for(lambda: service.serving() == second)
    path = f"{service.url}/v2/models/late-payments"
    body = {"inputs": tensors(columns([loan]))}
    assert requests.post(f"{path}/infer", json=body, timeout=10).json()["model_version"] == second
    said = error(requests.post(f"{path}/versions/{first}/infer", json=body, timeout=10), 404)
    assert said == f"expected a version that is being served, {second}, given '{first}'"


def test_decisions_are_counted_and_the_champions_are_scored_in_shadow(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    store.challenge(version_of("basic"))
    service = serve(store)
    service.wait_for(lambda: "in shadow: " in service.log.read_text("utf-8"))
    path = f"{service.url}/v2/models/late-payments"
    body = {"inputs": tensors(columns([loan | {"revol_util": None}] * 3))}
    assert requests.post(f"{path}/infer", json=body, timeout=10).ok
    service.wait_for(lambda: challenger_decisions(service) == 3)
    assert figures(service, "peerloan_challenger_decisions_total").get(("failed",), 0) == 0
    challenger = f"{path}/versions/{version_of('basic')}/infer"
    assert requests.post(challenger, json=body, timeout=10).ok
    body["inputs"][0]["data"] = [-1, -1, -1]
    assert requests.post(f"{path}/infer", json=body, timeout=10).status_code == 400
    assert sum(figures(service, "peerloan_decisions_total").values()) == 6
    assert challenger_decisions(service) == 3


def test_health_mirrors_the_probes(store: Store, version_of: VersionOf, serve: Serve) -> None:
    service = serve(store)
    assert requests.get(f"{service.url}/v2/health/live", timeout=10).json() == {"live": True}
    for path in ("/v2/health/ready", "/v2/models/late-payments", "/v2/models/late-payments/ready"):
        answer = requests.get(f"{service.url}{path}", timeout=10)
        assert answer.headers["Retry-After"] == "2"
        assert error(answer, 503).startswith("No model version is being served yet")
    assert requests.get(f"{service.url}/v2", timeout=10).ok
    store.promote(version_of("additive"))
    service.wait_for(lambda: service.serving() is not None)
    ready = requests.get(f"{service.url}/v2/health/ready", timeout=10)
    assert ready.json() == {"ready": True}


def test_a_process_that_could_not_load_its_champion_is_not_live(
    store: Store, version_of: VersionOf, serve: Serve
) -> None:
    version = version_of("additive")
    store.promote(version)
    shutil.rmtree(store.folder(version))
    service = serve(store)
    for path in ("live", "ready"):
        said = error(requests.get(f"{service.url}/v2/health/{path}", timeout=10), 503)
        assert "the champion was refused" in said


# Its own description


def test_answers_are_as_openapi_says(api: Api, loan: dict[str, Any]) -> None:
    document = api.get("/openapi.json").json()

    def valid(answer: requests.Response, method: str, path: str) -> None:
        responses = document["paths"][path][method]["responses"]
        content = responses[str(answer.status_code)]["content"]
        schema = content[answer.headers["Content-Type"]]["schema"]
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(answer.json())

    for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
        valid(api.get(path), "get", path)
    for pattern in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        path = pattern.format(model="late-payments", version=api.version)
        for what in ("", "/ready"):
            valid(api.get(path + what), "get", pattern + what)
            valid(api.get(path.replace("late", "x") + what), "get", pattern + what)
        body = document["paths"][f"{pattern}/infer"]["post"]["requestBody"]["content"]
        example = body["application/json"]["example"]
        answer = post(api, example, f"{path}/infer")
        assert answer.status_code == 200, answer.text
        valid(answer, "post", f"{pattern}/infer")
        valid(post(api, {}, f"{path}/infer"), "post", f"{pattern}/infer")
        schema = body["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        validator = jsonschema.Draft202012Validator(whole)
        validator.validate(example)
        validator.validate({"inputs": tensors(columns([loan])), "id": "x"})
        assert not validator.is_valid({"inputs": []})
