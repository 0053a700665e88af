"""What a running service tells: figures of all workers, a line a request, and the request's id."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.probes import figures, predict
from helpers.service import Serve, Service, settings
from helpers.stores import VersionOf
from peerloan.registry import Store

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def lines(service: Service) -> list[dict[str, Any]]:
    """The log's lines of JSON."""
    text = service.log.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.fixture
def service(store: Store, version_of: VersionOf, serve: Serve) -> Service:
    """A service of two workers."""
    store.promote(version_of("additive"))
    return serve(store, workers=2)


def test_figures_are_of_all_workers(service: Service, store: Store, loan: dict[str, Any]) -> None:
    for _ in range(30):
        assert predict(service, loan).ok
    assert predict(service, [loan] * 5).ok
    assert predict(service, loan | {"dti": "x"}).status_code == 422
    assert predict(service, loan, "?what_if=true").ok

    route = "/v1/predictions"
    # Each worker counts a moment after its answers.
    service.wait_for(lambda: figures(service, "peerloan_probability_count")[()] >= 35)
    service.wait_for(
        lambda: figures(service, "peerloan_request_seconds_count").get((route,), 0) >= 33
    )
    found = figures(service, "peerloan_requests_total")
    assert found["POST", route, "200"] == 32
    assert found["POST", route, "422"] == 1
    assert figures(service, "peerloan_request_seconds_count")[(route,)] == 33
    assert sum(figures(service, "peerloan_decisions_total").values()) == 35, "a what_if is none"
    assert figures(service, "peerloan_probability_count")[()] == 35
    version = str(store.state().champion)
    assert figures(service, "peerloan_serving_workers") == {(version,): 2}


def test_unseen_values_are_counted_by_field(service: Service, loan: dict[str, Any]) -> None:
    assert predict(service, loan | {"purpose": "yacht", "dti": 99.0}).ok
    assert predict(service, [loan | {"purpose": "yacht"}] * 3).ok
    # Each worker counts a moment after its answers.
    service.wait_for(
        lambda: figures(service, "peerloan_unseen_values_total") == {("purpose",): 4, ("dti",): 1}
    )


def test_swaps_and_refusals_are_counted(
    service: Service, store: Store, version_of: VersionOf
) -> None:
    first, second = version_of("additive"), version_of("basic")
    store.promote(second)
    service.wait_for(lambda: figures(service, "peerloan_serving_workers").get((second,)) == 2)
    assert figures(service, "peerloan_serving_workers")[(first,)] == 0
    assert figures(service, "peerloan_swaps_total")[()] == 2, "one in each worker"
    assert set(figures(service, "peerloan_refused_bundles_total").values()) == {0}
    shutil.rmtree(store.folder(first))
    state = store.root / "aliases/000003.json"
    newest = json.loads((store.root / "aliases/000002.json").read_text("utf-8"))
    state.write_text(json.dumps(newest | {"number": 3, "champion": first}), "utf-8")
    service.wait_for(lambda: figures(service, "peerloan_refused_bundles_total")[("champion",)] == 2)
    assert figures(service, "peerloan_refused_bundles_total")[("challenger",)] == 0


def test_a_request_has_a_line_with_its_id_and_nothing_of_the_loan(
    service: Service, loan: dict[str, Any]
) -> None:
    answer = predict(service, loan | {"purpose": "yacht"}, "?what_if=true", traceparent=TRACE)
    page = requests.get(f"{service.url}/nothing?annual_inc=42000", timeout=10)
    ids = {answer.headers["X-Request-Id"], page.headers["X-Request-Id"]}
    service.wait_for(lambda: ids <= {line.get("request_id") for line in lines(service)})
    told = {line["request_id"]: line for line in lines(service) if line["message"] == "request"}

    line = told[answer.headers["X-Request-Id"]]
    assert (line["method"], line["path"], line["status"]) == ("POST", "/v1/predictions", 200)
    assert line["traceparent"] == TRACE
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line["time"])
    assert 0 < line["seconds"] < 20
    assert told[page.headers["X-Request-Id"]]["path"] == "/nothing"
    text = service.log.read_text("utf-8")
    for value in ("yacht", "42000", "what_if", "annual_inc"):
        assert value not in text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (TRACE, True),
        (TRACE.replace("00-", "01-", 1), True),
        (TRACE.replace("00-", "ff-", 1), False),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), False),
        (TRACE.replace("00f067aa0ba902b7", "0" * 16), False),
        (TRACE.upper(), False),
        (f"{TRACE}, {TRACE}", False),
        ("", False),
    ],
)
def test_a_trace_is_logged_and_echoed_if_it_is_one(
    service: Service, loan: dict[str, Any], given: str, kept: bool
) -> None:
    answers = [predict(service, loan, query, traceparent=given) for query in ("", "?x=1")]
    assert [answer.status_code for answer in answers] == [200, 400]
    for answer in answers:
        assert answer.headers.get("traceparent") == (given if kept else None)
    ids = {answer.headers["X-Request-Id"] for answer in answers}
    service.wait_for(lambda: ids <= {line.get("request_id") for line in lines(service)})
    told = [line.get("traceparent") for line in lines(service) if line.get("request_id") in ids]
    assert told == [given if kept else None] * 2


def test_a_log_that_nobody_reads_any_more_ends_nothing(store: Store, tmp_path: Path) -> None:
    """As `peerloan serve | head`: the requests go on."""
    code = (
        "import os, sys, time\n"
        "from peerloan.service.wsgi import application\n"
        "client = application().test_client()\n"
        "for _ in range(30):\n"
        "    client.get('/healthz'); time.sleep(0.03)\n"
        "print(client.get('/healthz').status_code, file=sys.stderr)"
    )
    done = subprocess.run(
        ["sh", "-c", f'{sys.executable} -c "$CODE" | head -c 10'],
        env=os.environ | settings(store.root) | {"CODE": code},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "200" in done.stderr.split()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("given", "kept"),
    [("order-4711.a_b", True), ("short", False), ("x" * 65, False), ("a b c d e f", False)],
)
def test_a_caller_s_request_id_is_kept_if_it_is_one(
    service: Service, loan: dict[str, Any], given: str, kept: bool
) -> None:
    answer = predict(service, loan, **{"X-Request-Id": given})
    assert (answer.headers["X-Request-Id"] == given) == kept
    assert len(answer.headers["X-Request-Id"]) >= 8


def test_an_error_has_an_id_too(service: Service) -> None:
    for path in ("/v1/nothing", "/nothing", "/healthz", "/static/peerloan.css"):
        answer = requests.get(service.url + path, timeout=10)
        assert len(answer.headers["X-Request-Id"]) == 32
