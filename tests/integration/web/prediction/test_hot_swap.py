"""A running service under callers, while versions are promoted, rolled back and damaged."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

from helpers.service import Serve, Service
from helpers.stores import VersionOf, promote_unverified
from peerloan.book import open_book
from peerloan.loan import Checks, Definition, Field, default_definition
from peerloan.registry import BreakingChange, Store
from peerloan.training import train
from peerloan.web.prediction.serving_models import ServingModels

# What the design promises of a promotion.
FOLLOWS_WITHIN = 2.0
# Only ends a hang.
HANGS_SECONDS = 60.0
NEW = Field("months_on_book", "number", "Months on the book", min=0, missing=True)


@dataclass(frozen=True)
class Answer:
    """One answer that a caller got: when it asked, and what came."""

    asked: float
    status: int
    body: Any

    @property
    def version(self) -> str:
        """The one version that the whole answer is from."""
        found = {json.dumps(each["model"]) for each in self.predictions}
        assert len(found) == 1, found
        return str(self.predictions[0]["model"]["version"])

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """The predictions of a list, or the one prediction."""
        predictions: list[dict[str, Any]] = self.body.get("predictions", [self.body])
        return predictions


@dataclass
class Callers:
    """Threads that ask without a pause, on kept and on new connections."""

    url: str
    body: Any
    answers: list[Answer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, session: requests.Session) -> None:
        """Ask once, and keep what comes."""
        asked = time.monotonic()
        try:
            answer = session.post(f"{self.url}/v1/predictions", json=self.body, timeout=20)
            self.answers.append(Answer(asked, answer.status_code, answer.json()))
        except (requests.RequestException, ValueError) as error:
            self.faults.append(repr(error))

    def loop(self, kept: bool) -> None:
        """Ask until stopped."""
        session = requests.Session()
        until = time.monotonic() + 5 * HANGS_SECONDS
        while not self.stopped.wait(0.04) and time.monotonic() < until:
            if not kept:
                session = requests.Session()
            self.ask(session)

    def check(self) -> None:
        """No request may have failed."""
        assert not self.faults, self.faults[:3]
        wrong = [answer for answer in self.answers if answer.status != 200]
        assert not wrong, wrong[:1]

    def since(self, moment: float) -> list[Answer]:
        """The answers to what was asked after a moment."""
        return [answer for answer in list(self.answers) if answer.asked >= moment]


@contextmanager
def calling(url: str, body: Any, threads: int = 4) -> Iterator[Callers]:
    """Callers who ask while the block runs; none may fail."""
    callers = Callers(url, body)
    with ThreadPoolExecutor(threads) as pool:
        try:
            running = [pool.submit(callers.loop, i % 2 == 0) for i in range(threads)]
            yield callers
        finally:
            callers.stopped.set()
        for each in running:
            each.result()
    callers.check()
    assert len(callers.answers) > 20


def probabilities(store: Store, version: str, loans: list[dict[str, Any]]) -> list[float]:
    """What a version says of loans, asked directly."""
    bundle = store.load(version)
    checks = Checks(bundle.definition)
    return [bundle.decide(checks.loan(loan).values).probability for loan in loans]


def settled(callers: Callers, version: str, since: float) -> None:
    """Let the promised time pass; everybody who asks then is answered by the version."""
    until = since + FOLLOWS_WITHIN + HANGS_SECONDS
    while len(late := callers.since(since + FOLLOWS_WITHIN)) < 5 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(late) >= 5
    assert {answer.version for answer in late} == {version}


def test_a_promotion_is_followed_within_two_seconds_and_no_request_fails(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    basic, additive = version_of("basic"), version_of("additive")
    store.promote(basic)
    service = serve(store, workers=2)
    loans = [loan, loan | {"grade": "A", "int_rate": 0.06}, loan | {"emp_length": None}]

    with calling(service.url, loans) as callers:
        time.sleep(0.5)
        changes: list[tuple[str, Callable[[], object]]] = [
            (additive, lambda: store.promote(additive)),
            (basic, lambda: store.rollback()),
            (additive, lambda: store.promote(additive)),
        ]
        for version, change in changes:
            change()
            settled(callers, version, time.monotonic())

    said = {version: probabilities(store, version, loans) for version in (basic, additive)}
    assert said[basic] != said[additive]
    for answer in callers.answers:
        assert [each["probability"] for each in answer.predictions] == said[answer.version]


def test_a_damaged_version_is_refused_while_the_old_one_serves_until_it_is_repaired(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    basic, additive = version_of("basic"), version_of("additive")
    store.promote(basic)
    service = serve(store, workers=2)
    file = store.root / "versions" / additive / "scorecard.json"
    whole = file.read_bytes()

    with calling(service.url, loan) as callers:
        file.write_bytes(whole.replace(b"1", b"2", 1))
        promote_unverified(store, additive)
        settled(callers, basic, time.monotonic())

        log = service.log.read_text()
        refusals = re.findall(r"champion refused: (.*); still serving: ([^\"]*)", log)
        assert len(refusals) == 2  # each worker says so, once
        for reason, kept in refusals:
            assert additive in reason
            assert "scorecard.json" in reason
            assert kept == basic
        ready = requests.get(f"{service.url}/readyz", timeout=5)
        assert ready.status_code == 200
        assert ready.json()["model"]["version"] == basic
        assert "scorecard.json" in ready.json()["refused"]
        assert requests.get(f"{service.url}/healthz", timeout=5).status_code == 200

        file.write_bytes(whole)
        # A refused version is tried again every five seconds.
        eventually(service, lambda: service.serving() == additive, seconds=8)
        assert "refused" not in requests.get(f"{service.url}/readyz", timeout=5).json()


def edit_manifest(store: Store, version: str, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a version's manifest."""
    path = store.root / "versions" / version / "manifest.json"
    manifest = json.loads(path.read_bytes())
    edit(manifest)
    path.write_text(json.dumps(manifest))


def swap_file(store: Store, version: str, name: str, edit: Callable[[Any], None]) -> None:
    """Change a version's file and make its digest hold again."""
    path = store.root / "versions" / version / name
    content = json.loads(path.read_bytes())
    edit(content)
    new = json.dumps(content).encode()
    path.write_bytes(new)
    entry = {"bytes": len(new), "sha256": hashlib.sha256(new).hexdigest()}
    edit_manifest(store, version, lambda manifest: manifest["files"].update({name: entry}))


DAMAGES: dict[str, Callable[[Store, str], object]] = {
    "a file is gone": lambda s, v: (s.root / "versions" / v / "profile.json").unlink(),
    "the manifest is gone": lambda s, v: (s.root / "versions" / v / "manifest.json").unlink(),
    "the manifest is cut off": lambda s, v: (s.root / "versions" / v / "manifest.json").write_text(
        '{"format": 1, "arith'
    ),
    "a future format": lambda s, v: edit_manifest(s, v, lambda m: m.update(format=99)),
    "no golden examples": lambda s, v: edit_manifest(s, v, lambda m: m.update(golden=[])),
    "a golden example differs": lambda s, v: edit_manifest(
        s, v, lambda m: m["golden"][0].update(margin=0.5)
    ),
    "a golden example is no loan": lambda s, v: edit_manifest(
        s, v, lambda m: m["golden"][0]["loan"].update(dti="x")
    ),
    "no fields": lambda s, v: swap_file(s, v, "loan.json", lambda d: d.update(field=[])),
    "another field": lambda s, v: swap_file(
        s, v, "loan.json", lambda d: d["field"][0].update(name="other")
    ),
    "an empty profile": lambda s, v: swap_file(s, v, "profile.json", lambda p: p.clear()),
    "an empty scorecard": lambda s, v: swap_file(s, v, "scorecard.json", lambda p: p.clear()),
    "a version of no store": lambda s, _: promote_unverified(s, "never-published"),
    "a state that is cut off": lambda s, _: (s.root / "aliases" / "000003.json").write_text("{"),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_whatever_is_wrong_with_a_champion_the_old_one_serves(
    store: Store, version_of: VersionOf, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    basic, additive = version_of("basic"), version_of("additive")
    store.promote(basic)
    champion = ServingModels(store)
    assert champion.current is not None
    promote_unverified(store, additive)
    DAMAGES[damage](store, additive)

    with caplog.at_level(logging.ERROR):
        champion.refresh()
        champion.refresh()

    assert champion.current is not None
    assert champion.current.bundle.version == basic
    assert champion.refusal
    assert champion.unhealthy is None
    (record,) = (
        each for each in caplog.records if each.levelno >= logging.ERROR
    )  # said once, not every half a second
    said = record.getMessage()
    if champion.refusal == "the store can't be read; the log has the reason":
        assert f"{store.root}/aliases/000003.json can't be read: " in said
    else:
        assert champion.refusal in said
    assert basic in said
    # Started on it, the process is up and says that it should be replaced.
    assert ServingModels(store).unhealthy == champion.refusal


def test_a_fault_that_nobody_thought_of_is_a_refusal_too(
    store: Store, version_of: VersionOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.promote(version_of("basic"))

    def fault(_self: Store, version: str) -> None:
        raise KeyError(version)

    monkeypatch.setattr(Store, "load", fault)

    champion = ServingModels(store)

    assert champion.unhealthy == f"KeyError: {version_of('basic')!r}"


def test_a_rollback_from_a_refused_version_clears_the_refusal(
    store: Store, version_of: VersionOf
) -> None:
    store.promote(version_of("basic"))
    champion = ServingModels(store)
    promote_unverified(store, version_of("additive"))
    (store.root / "versions" / version_of("additive") / "loan.json").unlink()
    champion.refresh()
    assert champion.refusal

    store.rollback()
    champion.refresh()

    assert champion.refusal is None
    assert champion.current is not None
    assert champion.current.bundle.version == version_of("basic")


# A version with one field more


def with_field(required: bool) -> Definition:
    """PeerLoan's definition and one field."""
    base = default_definition()
    new = msgspec.structs.replace(NEW, missing=not required)
    return msgspec.structs.replace(base, fields=(*base.fields, new))


@pytest.fixture(scope="module")
def wider_book(sample_book: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the sample book with one column more."""
    path = tmp_path_factory.mktemp("wider") / "book.csv"
    with sample_book.open(newline="") as source, path.open("w", newline="") as target:
        reader, writer = csv.reader(source), csv.writer(target)
        writer.writerow([*next(reader), NEW.name])
        writer.writerows([*row, (i * 7) % 60] for i, row in enumerate(islice(reader, 2_500)))
    return path


def eventually(
    service: Service, condition: Callable[[], bool], seconds: float = FOLLOWS_WITHIN + 3
) -> None:
    """Wait until a condition held ten times in a row: so long that every worker was asked."""
    until = time.monotonic() + seconds
    held = 0
    while time.monotonic() < until:
        held = held + 1 if condition() else 0
        if held == 10:
            return
        time.sleep(0.05)
    pytest.fail(service.log.read_text())


def test_a_version_with_an_optional_field_more_is_served_without_breaking_anybody(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any], wider_book: Path
) -> None:
    old = version_of("basic")
    store.promote(old)
    service = serve(store, workers=2)
    wide_loan = loan | {NEW.name: 12}
    warning = f"{NEW.name}: this model version does not use it"

    def post(body: dict[str, Any]) -> requests.Response:
        return requests.post(f"{service.url}/v1/predictions", json=body, timeout=10)

    def warned() -> bool:
        answer = post(wide_loan)
        return answer.status_code == 200 and warning in answer.json()["warnings"]

    def knows() -> tuple[bool, bool]:
        """Whether the form asks for the field, and whether the API accepts it."""
        page = requests.get(service.url, timeout=10).text
        document = requests.get(f"{service.url}/openapi.json", timeout=10).json()
        return NEW.label in page, NEW.name in document["components"]["schemas"]["Loan"][
            "properties"
        ]

    with calling(service.url, [loan, loan], threads=2) as callers:
        assert post(wide_loan).status_code == 422
        assert knows() == (False, False)
        (outcome,) = train(
            open_book(wider_book), with_field(False), store, ("logistic",), fast=True
        )
        new = outcome.version
        assert post(wide_loan).status_code == 422

        # Callers may send it before the promotion …
        store.challenge(new)
        eventually(service, warned)
        assert knows() == (False, True)
        with calling(service.url, [wide_loan, wide_loan], threads=2):
            store.promote(new)
            settled(callers, new, time.monotonic())
            assert post(wide_loan).json()["warnings"] == post(loan).json()["warnings"]
            assert post(loan | {NEW.name: "x"}).status_code == 422
            assert post(wide_loan).json()["model"]["version"] == new
            assert knows() == (True, True)
            # … and after a rollback.
            store.rollback()
            settled(callers, old, time.monotonic())
            eventually(service, warned)
            assert post(loan | {NEW.name: "x"}).status_code == 200
            assert knows() == (False, True)


def test_a_version_with_a_required_field_more_needs_breaking(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any], wider_book: Path
) -> None:
    store.promote(version_of("additive"))
    (outcome,) = train(open_book(wider_book), with_field(True), store, ("additive",), fast=True)
    new = outcome.version
    store.challenge(new)
    service = serve(store, workers=2)

    with calling(service.url, loan | {NEW.name: 12}, threads=2) as callers:
        with pytest.raises(BreakingChange, match="months_on_book: is new and required"):
            store.promote(new)
        store.promote(new, breaking=True)
        settled(callers, new, time.monotonic())
        answer = requests.post(f"{service.url}/v1/predictions", json=loan, timeout=10)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [NEW.name]
        schema = requests.get(f"{service.url}/openapi.json", timeout=10).json()["components"]
        assert NEW.name in schema["schemas"]["Loan"]["required"]
        store.rollback()
        settled(callers, version_of("additive"), time.monotonic())


def test_over_http_a_breaking_promotion_names_its_reasons(
    store: Store,
    version_of: VersionOf,
    serve: Serve,
    run: Callable[..., subprocess.CompletedProcess[str]],
    wider_book: Path,
) -> None:
    store.promote(version_of("additive"))
    (outcome,) = train(open_book(wider_book), with_field(True), store, ("additive",), fast=True)
    token = run("token", "new", "anna", "--operator").stdout.strip()
    service = serve(store)
    address = f"{service.url}/v1/models/{outcome.version}/promote"
    head = {"Authorization": f"Bearer {token}"}
    refused = requests.post(address, headers=head, timeout=10)
    assert refused.status_code == 409
    assert refused.json()["reasons"] == [f"{NEW.name}: is new and required"]
    assert store.state().number == 1
    promoted = requests.post(address, headers=head, json={"breaking": True}, timeout=10)
    assert promoted.status_code == 200
    assert (store.state().champion, store.state().who) == (outcome.version, "anna")


# Starting and stopping


def test_requests_in_flight_are_answered_before_it_stops(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("basic"))
    service = serve(store, workers=2)
    # Their reasons take the two seconds that they may.
    loans = [loan | {"loan_amnt": 1000 + i} for i in range(1500)]
    callers = Callers(service.url, loans)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(callers.ask, requests.Session()) for _ in range(4)]
        time.sleep(0.7)
        service.process.send_signal(signal.SIGTERM)
        for each in asked:
            each.result()

    callers.check()
    assert len(callers.answers) == 4
    assert all(len(answer.predictions) == 1500 for answer in callers.answers)
    assert service.process.wait(timeout=20) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(service.url, timeout=5)


def test_a_taken_port_is_one_line_and_exit_code_1(
    run: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("serve", "--port", port, timeout=30)

    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert f"port {port} is taken" in line


def test_it_listens_on_loopback_unless_told_otherwise(store: Store, serve: Serve) -> None:
    service = serve(store)
    port = int(service.url.rpartition(":")[2])
    tables = [path for path in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if path.exists()]
    if not tables:
        pytest.skip("no table of sockets on this system")

    listening = [
        address
        for table in tables
        for _, address, _, state, *_ in map(str.split, table.read_text().splitlines()[1:])
        if state == "0A" and int(address.rpartition(":")[2], 16) == port
    ]

    assert listening == [f"0100007F:{port:04X}"]
