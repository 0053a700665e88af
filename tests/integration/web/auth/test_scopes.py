"""What a token may do: its scopes, address by address, and whose decisions it reads."""

from __future__ import annotations

import itertools
import json
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import update

from helpers.apps import create_app
from helpers.commands import Call, Run
from helpers.service import bearer
from peerloan.clock import now_ms
from peerloan.database import Database, tables
from peerloan.ledger import Chain, Entry, Record, Seal, Version, queries
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.uuid7 import first_at
from peerloan.web.auth.endpoint_scopes import UnguardedView, required_scopes
from peerloan.web.auth.tokens import SCOPES, Scope, Tokens
from peerloan.web.http.lean_flask import Application

ANY: set[str] = set(SCOPES)
DECISIONS = {"read", "predict"}
# What each address asks for, by method; None: nobody is asked.
ADDRESSES: dict[tuple[str, str], set[str] | None] = {
    ("GET", "/"): {"predict"},
    ("POST", "/"): {"predict"},
    ("GET", "/decisions"): DECISIONS,
    ("GET", "/decisions/<decision>"): DECISIONS,
    ("GET", "/find"): DECISIONS,
    ("GET", "/models"): {"read"},
    ("GET", "/models/<version>"): {"read"},
    ("GET", "/models/<version>/<document>"): {"read"},
    ("POST", "/v1/predictions"): {"predict"},
    ("GET", "/v1/predictions"): DECISIONS,
    ("GET", "/v1/predictions/<decision>"): DECISIONS,
    ("POST", "/v1/outcomes"): {"outcomes"},
    ("GET", "/v1/events"): {"read"},
    ("POST", "/v1/events/<event>/acknowledge"): {"outcomes"},
    ("GET", "/v1/drift"): {"read"},
    ("GET", "/v1/models"): {"read"},
    ("GET", "/v1/models/<version>"): {"read"},
    ("POST", "/v1/models/<version>/promote"): set(),  # an operator alone
    ("GET", "/metrics"): {"metrics"},
    ("GET", "/openapi.json"): ANY,
    ("GET", "/docs"): ANY,
    ("GET", "/docs/static/<path:filename>"): ANY,
    ("GET", "/v2"): {"predict"},
    ("GET", "/v2/models/<model>"): {"predict"},
    ("GET", "/v2/models/<model>/ready"): {"predict"},
    ("POST", "/v2/models/<model>/infer"): {"predict"},
    ("GET", "/v2/models/<model>/versions/<version>"): {"predict"},
    ("GET", "/v2/models/<model>/versions/<version>/ready"): {"predict"},
    ("POST", "/v2/models/<model>/versions/<version>/infer"): {"predict"},
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/v2/health/live"): None,
    ("GET", "/v2/health/ready"): None,
    ("POST", "/sign-in"): None,
    ("POST", "/sign-out"): None,
    ("GET", "/static/<path:filename>"): None,
    ("GET", "/bootstrap/static/<path:filename>"): None,
}
PARAMETERS = {
    "<decision>": str(uuid.uuid4()),
    "<event>": str(uuid.uuid4()),
    "<model>": "late-payments",
    "<document>": "card.md",
    "<version>": "none",
    "<path:filename>": "none.css",
}


class Desk:
    """A service that asks for tokens, and a maker of them."""

    def __init__(self, store: Store, ledger: str) -> None:
        self.root = store.root.parent
        self.tokens = Tokens(self.root / "tokens")
        self.reader = bearer(self.tokens.new("reader", scopes=["read"]))
        self.database = Database(ledger)
        self.database.upgrade()
        self._settings = Settings(store.root, self.root / "tokens", ledger)
        self._app: Flask | None = None

    def caller(self, name: str, *scopes: Scope) -> dict[str, str]:
        """The head of a caller's requests; to be asked for before the first request."""
        assert self._app is None
        return bearer(self.tokens.new(name, scopes=scopes))

    @property
    def client(self) -> FlaskClient:
        self._app = self._app or create_app(self._settings)
        return self._app.test_client(use_cookies=False)

    def decide(self, head: dict[str, str], loan: dict[str, Any], **more: Any) -> str:
        answer = self.client.post("/v1/predictions", json=loan | more, headers=head)
        assert answer.status_code == 200, answer.text
        return str(answer.json["id"])  # type: ignore[index]

    def listed(self, head: dict[str, str], **query: object) -> list[str]:
        """The ids of every page."""
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            answer = self.client.get("/v1/predictions", query_string=query | cursor, headers=head)
            assert answer.status_code == 200, answer.text
            page: Any = answer.json
            found += [each["id"] for each in page["predictions"]]
            if page["next"] is None:
                return found
            assert cursor != {"cursor": page["next"]}
            cursor = {"cursor": page["next"]}

    def tell(self, head: dict[str, str], *outcomes: dict[str, Any]) -> Any:
        answer = self.client.post("/v1/outcomes", json={"outcomes": outcomes}, headers=head)
        assert answer.status_code == 200, answer.text
        return answer.json


@pytest.fixture
def desk(champion: Store, tmp_path: Path) -> Desk:
    """A service over SQLite."""
    return Desk(champion, f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}")


# Addresses


def test_every_address_opens_by_its_scope_and_by_no_other(desk: Desk) -> None:
    heads = {scope: desk.caller(scope, scope) for scope in SCOPES}
    plain, operator = (
        bearer(desk.tokens.new(name, operator=name == "anna")) for name in ("loans-app", "anna")
    )
    client = desk.client
    rules = {
        (method, rule.rule): rule.rule
        for rule in client.application.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert rules.keys() == ADDRESSES.keys(), "a new address belongs into this list, and the docs'"
    for (method, rule), opens in ADDRESSES.items():
        path = rule
        for parameter, value in PARAMETERS.items():
            path = path.replace(parameter, value)
        asked: dict[str, Any] = {"method": method, "json": None if method == "GET" else {}}
        without = client.open(path, **asked)
        if opens is None:
            assert without.status_code != 401 or rule == "/sign-in", (method, rule)
            continue
        assert without.status_code == 401, (method, rule)
        for scope, head in heads.items():
            answer = client.open(path, headers=head, **asked)
            assert (answer.status_code == 403) == (scope not in opens), (method, rule, scope)
            if answer.status_code == 403 and opens:
                assert f"--scope {next(each for each in SCOPES if each in opens)}" in answer.text
                assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
        assert (client.open(path, headers=plain, **asked).status_code == 403) == (not opens)
        assert client.open(path, headers=operator, **asked).status_code not in (401, 403)
    for head in heads.values():
        assert client.get("/nothing", headers=head).status_code == 404


def test_a_missing_scope_is_named_with_how_to_get_it(desk: Desk) -> None:
    head = desk.caller("prometheus", "metrics")
    refused = desk.client.get("/v1/predictions", headers=head)
    assert refused.content_type == "application/problem+json"
    assert refused.json == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": "expected a token with the scope predict or read, given the token of prometheus, "
        "which has metrics; make one with: peerloan token new NAME --scope predict",
    }
    protocol = desk.client.post("/v2/models/late-payments/infer", headers=head, json={})
    assert protocol.status_code == 403
    assert set(protocol.json) == {"error"}  # type: ignore[arg-type]


def test_an_address_that_says_nothing_can_not_be_served(desk: Desk) -> None:
    app = Application("forgetful")
    app.add_url_rule("/v1/everything", view_func=lambda: "all loans", endpoint="everything")
    with pytest.raises(UnguardedView, match="/v1/everything: the view everything has no guard"):
        required_scopes(app)
    # Nor one that comes later.
    operator = bearer(desk.tokens.new("anna", operator=True))
    late = desk.client.application
    late.add_url_rule("/v1/late", view_func=lambda: "all loans", endpoint="late")
    for head in (operator, desk.reader):
        assert late.test_client().get("/v1/late", headers=head).status_code == 403


def test_a_person_has_the_scopes_of_the_token(desk: Desk, loan: dict[str, Any]) -> None:
    token = desk.tokens.new("auditor", scopes=["read"])
    browser = desk.client.application.test_client()
    assert browser.post("/sign-in", data={"token": token}).status_code == 303
    page = browser.get("/", headers={"Accept": "text/html"})
    assert page.status_code == 403
    assert "expected a token with the scope predict" in page.text
    assert "Sign out" in page.text
    form = {f"field.{name}": value for name, value in loan.items()}
    assert browser.post("/", data=form).status_code == 403
    assert browser.get("/v1/predictions").json == {"predictions": [], "next": None}


def test_the_description_states_scopes(desk: Desk) -> None:
    described: Any = desk.client.get("/openapi.json", headers=desk.reader).json
    for path, methods in described["paths"].items():
        rule = path.replace("{", "<").replace("}", ">")
        for method, operation in methods.items():
            opens = ADDRESSES[method.upper(), rule]
            needed = [list(each["token"]) for each in operation.get("security", [{"token": []}])]
            if opens is None:
                assert needed == []
            elif opens == ANY:
                assert needed == [[]]
            else:
                named = [str(scope) for scope in SCOPES if scope in opens] or ["operator"]
                assert needed == [[scope] for scope in named]
                assert named[0] in operation["description"]
            if opens is not None:
                assert "scope" in operation["responses"]["403"]["description"]


# Whose decisions


@pytest.fixture
def shared(champion: Store, ledger_url: str) -> Desk:
    """A service over each kind of database."""
    return Desk(champion, ledger_url)


def test_a_caller_reads_its_own_decisions_alone(shared: Desk, loan: dict[str, Any]) -> None:
    anna, otto = (shared.caller(name, "predict") for name in ("anna", "otto"))
    made = [
        shared.decide(head, loan, loan_id=f"L-{i}", dti=5 + 7 * i)
        for i, head in enumerate([anna, otto] * 3)
    ]
    newest = made[::-1]
    assert shared.listed(shared.reader) == newest
    for mine, head in ((newest[1::2], anna), (newest[::2], otto)):
        assert shared.listed(head) == mine
        assert shared.listed(head, limit=1) == mine
        every: Any = [
            shared.client.get(f"/v1/predictions/{each}", headers=head).json for each in mine
        ]
        for name in ("band", "version"):
            value = every[0]["model"][name] if name == "version" else every[0][name]
            every_one_s = shared.listed(shared.reader, **{name: value})
            assert shared.listed(head, **{name: value}) == [e for e in every_one_s if e in mine]
        assert shared.listed(head, since="2020-01-01", until="2999-01-01") == mine
    assert shared.listed(anna, loan_id="L-0") == [made[0]]
    assert shared.listed(anna, loan_id="L-1") == []
    # Another's is as unknown as none at all.
    unknown = str(uuid.uuid4())
    answers = [
        shared.client.get(f"/v1/predictions/{each}", headers=anna) for each in (made[1], unknown)
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text.replace(made[1], unknown) == answers[1].text
    assert shared.client.get(f"/v1/predictions/{made[1]}", headers=otto).status_code == 200
    assert shared.client.get(f"/v1/predictions/{made[1]}", headers=shared.reader).status_code == 200


def test_a_purged_decision_is_nobody_s(desk: Desk, loan: dict[str, Any]) -> None:
    anna = desk.caller("anna", "predict")
    made = desk.decide(anna, loan)
    with desk.database.writing() as connection:
        connection.execute(update(tables.decisions).values(inputs=None, caller=None, source=None))
    address = f"/v1/predictions/{made}"
    assert desk.client.get(address, headers=anna).status_code == 404
    assert desk.client.get(address, headers=desk.reader).status_code == 410


def test_outcomes_are_told_of_own_decisions_alone(shared: Desk, loan: dict[str, Any]) -> None:
    anna = shared.caller("anna", "predict", "outcomes")
    otto = shared.caller("otto", "predict", "outcomes")
    job = shared.caller("job", "outcomes", "read")
    made = shared.decide(otto, loan, loan_id="L-1")
    kept: Any = shared.client.get(f"/v1/predictions/{made}", headers=otto).json
    today = kept["time"][:10]
    unknown = str(uuid.uuid4())
    answer = shared.tell(
        anna,
        {"id": made, "late": True},
        {"id": unknown, "late": True},
        {"loan_id": "L-1", "date": today, "late": True},
        {"loan_id": "L-2", "date": today, "late": True},
    )
    assert answer["refused"] == 4
    by_id, by_unknown, by_loan, by_no_loan = (json.dumps(e) for e in answer["outcomes"])
    assert by_id.replace(made, unknown) == by_unknown
    assert by_loan.replace("L-1", "L-2") == by_no_loan
    assert shared.tell(otto, {"id": made, "late": True})["stored"] == 1
    assert shared.tell(job, {"id": made, "late": False})["corrected"] == 1
    told: Any = shared.client.get(f"/v1/predictions/{made}", headers=otto).json
    assert [each["caller"] for each in told["outcomes"]] == ["job", "otto"]


def test_a_loan_s_own_decision_counts_though_another_s_is_later(
    shared: Desk, loan: dict[str, Any]
) -> None:
    anna = shared.caller("anna", "predict", "outcomes")
    otto = shared.caller("otto", "predict", "outcomes")
    mine = past(shared, "anna", "L-1", days_ago=40)
    past(shared, "otto", "L-1", days_ago=30)
    day = {"loan_id": "L-1", "date": days_ago(0), "late": True}
    assert [each["id"] for each in shared.tell(anna, day)["outcomes"]] == [mine]
    assert shared.tell(otto, day)["outcomes"][0]["id"] != mine


def test_what_a_user_of_the_same_name_scored_is_no_caller_s(desk: Desk) -> None:
    """`peerloan score` keeps the name of the machine's user."""
    root = desk.caller("root", "predict", "outcomes")
    made = past(desk, "root", "L-1", source="book")
    assert desk.listed(root) == []
    assert desk.client.get(f"/v1/predictions/{made}", headers=root).status_code == 404
    assert desk.tell(root, {"id": made, "late": True})["refused"] == 1
    assert desk.listed(desk.reader) == [made]


def test_pages_of_few_own_decisions_among_many_are_bounded_and_complete(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page never looks through more of the ledger than its reach."""
    anna = desk.caller("anna", "predict")
    made = [past(desk, "anna" if i % 10 == 3 else "otto", f"L-{i}") for i in range(41)]
    mine = [each for i, each in enumerate(made) if i % 10 == 3][::-1]
    monkeypatch.setattr(queries, "REACH", 7)
    page: Any = desk.client.get("/v1/predictions?limit=2", headers=anna).json
    assert page["predictions"] == []
    assert page["next"] is not None
    assert desk.listed(anna) == desk.listed(anna, limit=1) == mine
    assert desk.listed(anna, version="v1", band="low") == mine
    assert desk.listed(desk.reader) == made[::-1]


def test_another_s_key_leads_to_no_answer_of_another(desk: Desk, loan: dict[str, Any]) -> None:
    anna, otto = (desk.caller(name, "predict") for name in ("anna", "otto"))
    key = {"Idempotency-Key": "k1"}
    answers = [
        desk.client.post("/v1/predictions", json=loan, headers=head | key)
        for head in (anna, otto, anna)
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert [answer.headers.get("Idempotency-Replayed") for answer in answers] == [
        None,
        None,
        "true",
    ]
    ids = [answer.json["id"] for answer in answers]  # type: ignore[index]
    assert ids[0] == ids[2] != ids[1]
    other = desk.client.post("/v1/predictions", json=loan | {"dti": 1}, headers=otto | key)
    assert other.status_code == 422
    assert ids[0] not in other.text


# Making them


def test_scopes_are_given_on_the_command_line(call: Call, tmp_path: Path) -> None:
    for name, *options in (
        ("prometheus", "--scope", "metrics"),
        ("job", "--scope", "read,outcomes"),
        ("app", "--scope", "outcomes", "--scope", "predict"),
        ("plain",),
        ("anna", "--operator"),
    ):
        assert call("token", "new", name, *options).code == 0
    listed = {
        each["name"]: (each["scopes"], each["operator"])
        for each in json.loads(call("token", "list", "--json").out)
    }
    assert listed == {
        "prometheus": (["metrics"], False),
        "job": (["outcomes", "read"], False),
        "app": (["predict", "outcomes"], False),
        "plain": (list(SCOPES), False),
        "anna": (list(SCOPES), True),
    }
    text = call("token", "list").out
    assert "predict, outcomes, read, metrics" in text
    assert (tmp_path / "tokens/scoped.json").stat().st_mode & 0o777 == 0o600
    assert "prometheus already has a token" in call("token", "new", "prometheus").err
    assert call("token", "revoke", "prometheus").code == 0
    assert "prometheus" not in call("token", "list").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scope", "write"), "expected predict, outcomes, read, metrics, one or more, given"),
        (("--scope", "read,"), "given ''"),
        (("--scope", ""), "given ''"),
        (("--scope", "read", "--operator"), "an operator's token has every scope"),
    ],
)
def test_wrong_scopes_make_no_token(
    run: Run, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    done = run("token", "new", "job", *options)
    assert done.returncode == 2
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "tokens").exists()


# The release before


class OldToken(msgspec.Struct, frozen=True):
    """A token as the release before reads and writes it."""

    name: str
    operator: bool
    created: str
    digest: str


class OldFile(msgspec.Struct, frozen=True):
    """The file of the release before, which takes what stands in it for plain or an operator's."""

    format: Literal[1]
    tokens: tuple[OldToken, ...]


def test_the_release_before_gives_a_narrow_token_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    tokens = Tokens(folder)
    tokens.new("prometheus", scopes=["metrics"])
    file = folder / "tokens.json"
    # It takes a key without this file for tokens that were lost.
    assert msgspec.json.decode(file.read_bytes(), type=OldFile).tokens == ()
    tokens.new("loans-app")
    old = msgspec.json.decode(file.read_bytes(), type=OldFile)
    assert [each.name for each in old.tokens] == ["loans-app"]
    # It makes one and takes one back, and the narrow one is as it was.
    made = OldToken("anna", True, "2026-11-30T00:00:00+00:00", "00" * 32)
    file.write_bytes(msgspec.json.encode(OldFile(1, (made,))))
    assert {each.name: (sorted(each.scopes), each.operator) for each in tokens.read()} == {
        "prometheus": (["metrics"], False),
        "anna": (sorted([*SCOPES, "promote"]), True),
    }


def test_a_narrow_token_never_promotes_whatever_its_file_says(tmp_path: Path) -> None:
    tokens = Tokens(tmp_path / "tokens")
    tokens.new("job", scopes=["read"])
    file = tmp_path / "tokens/scoped.json"
    file.write_text(file.read_text().replace('"read"', '"read", "promote", "of a later release"'))
    (token,) = tokens.read()
    assert token.scopes == {"read"}
    assert not token.operator


DAY_MS = 86_400_000
NUMBERS = itertools.count(1)


def days_ago(days: int) -> str:
    return str((datetime.now(UTC) - timedelta(days)).date())


def past(desk: Desk, caller: str, loan_id: str, days_ago: int = 20, source: str = "api") -> str:
    """Keep a decision of the past; returns its id."""
    number = next(NUMBERS)
    moment = now_ms() - days_ago * DAY_MS + number
    made = (first_at(moment).int | 0x7 << 76 | 0x2 << 62 | number).to_bytes(16, "big")
    chain = Chain(desk.database, Seal(desk.root / "peerloan-seal"))
    values = (source, caller, "r" * 32, None, loan_id, '{"a": 1}', 0.5, 0.6, True, 0, "[]", None)
    chain.append([Entry([Record(made, Version("v1", "d" * 64, 0.05), *values)])])
    chain.close()
    return str(uuid.UUID(bytes=made))
