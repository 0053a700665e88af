"""Decisions are computed anew by the versions that made them, and are the same to the last bit."""

from __future__ import annotations

import csv
import json
import math
import shutil
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from helpers.apps import create_app
from helpers.commands import Run
from helpers.ledgers import url_of
from helpers.paths import FORMATS
from helpers.stores import VersionOf
from peerloan.book import open_book
from peerloan.database import Database, tables
from peerloan.ledger import Chain, Entry, Record, Seal, StoredDecision
from peerloan.ledger.audit.replay import Replay
from peerloan.ledger.queries import find_decisions
from peerloan.loan import Checks, Field, default_definition
from peerloan.model import BANDS
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.training import train
from peerloan.uuid7 import IdGenerator
from peerloan.uuid7 import text as id_text

NEW = Field("months_known", "whole", "Months known", missing=True)


def service(store: Store, database: Database) -> FlaskClient:
    """A service over the test's store and this ledger."""
    chosen = Settings(store.root, store.root.parent / "tokens", url_of(database))
    return create_app(chosen, on_loopback=True).test_client()


def post(client: FlaskClient, body: object, query: str = "") -> list[str]:
    """Ask for predictions, given a value or JSON text; their ids."""
    data = body if isinstance(body, str) else json.dumps(body)
    answer = client.post(
        f"/v1/predictions{query}", data=data.encode(), content_type="application/json"
    )
    assert answer.status_code == 200, answer.text
    read = answer.json
    assert read is not None
    return [each["id"] for each in read.get("predictions", [read])]


def odd_loans(loan: dict[str, Any]) -> list[str]:
    """Loans in JSON, with everything that a caller may write."""
    plain = json.dumps(loan)
    return [
        plain,
        json.dumps(loan | {"loan_amnt": 12000.0, "delinq_2yrs": 3.0, "loan_id": 17}),
        json.dumps(loan | {"revol_util": None, "emp_length": None, "loan_id": "L-1"}),
        json.dumps({name: loan[name] for name in loan if name not in ("emp_length", "revol_util")}),
        json.dumps(loan | {"purpose": "space travel", "home_ownership": "ÜBER \U0001f3e0 <&>"}),
        json.dumps(loan | {"purpose": "ünseen \\ \"quoted\" / 'text'"}, ensure_ascii=False),
        plain.replace('"credit_card"', '"credit\\u005fcard"'),
        plain.replace("14.46", "-0.0").replace('"delinq_2yrs": 0', '"delinq_2yrs": -0'),
        plain.replace("14.46", "1446e-2").replace("42000", "4.2e4"),
        json.dumps(loan | {"annual_inc": 1e300, "dti": 5e-324, "int_rate": 1.0}, indent=3),
        json.dumps(loan | {"delinq_2yrs": 9007199254740993}),
        json.dumps(loan | {"loan_amnt": 12, "revol_util": 64.7, "dti": 1446}),
    ]


def replay(run: Run, database: Database, *arguments: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the report."""
    done = run("replay", "--json", *arguments, ledger=url_of(database))
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout)


def alter(database: Database, decision: str, **values: object) -> None:
    """Change a decision in the database."""
    table = tables.decisions
    with database.writing() as connection:
        rows = connection.execute(select(table.c.id)).scalars()
        (wanted,) = (each for each in rows if str(each) == decision)
        connection.execute(update(table).where(table.c.id == wanted).values(**values))


def kept_of(database: Database, decision: str) -> StoredDecision:
    """A decision as it is kept."""
    return find_decisions(database, [UUID(decision).bytes]).popitem()[1]


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_whatever_was_answered_is_identical(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    database: Database,
    run: Run,
    candidate: str,
) -> None:
    store.promote(version_of(candidate))
    client = service(store, database)
    odd = odd_loans(loan)
    decisions = [each for body in odd for each in post(client, body)]
    decisions += post(client, f"[{','.join(odd)}]")
    columns = {name: [value, value] for name, value in loan.items()}
    decisions += post(client, columns)
    decisions += post(client, loan, "?reasons=none")
    tensors = [
        {
            "name": name,
            "shape": [2],
            "datatype": "BYTES" if isinstance(values[0], str) else "FP64",
            "data": values,
        }
        for name, values in columns.items()
    ]
    answer = client.post("/v2/models/late-payments/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    form = {f"field.{name}": str(value) for name, value in loan.items()}
    assert client.post("/", data=form).status_code == 200
    code, report = replay(run, database)
    count = len(decisions) + 3
    assert (code, report["decisions"], report["identical"]) == (0, count, count), report
    code, report = replay(run, database, "--id", decisions[0], "--id", decisions[3])
    assert (code, report["identical"]) == (0, 2)
    told = run("replay", ledger=url_of(database))
    assert told.returncode == 0
    assert told.stdout == f"{count} of {count} decisions are identical, bit for bit\n"
    assert "replaying" in told.stderr


@pytest.fixture(scope="module")
def wider(
    trained: Path, sample_book: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The trained store, and a version in it that has one field more."""
    top = tmp_path_factory.mktemp("wider")
    shutil.copytree(trained, top / "store")
    with sample_book.open(newline="") as source, (top / "book.csv").open("w", newline="") as target:
        reader, writer = csv.reader(source), csv.writer(target)
        writer.writerow([*next(reader), NEW.name])
        writer.writerows([*row, (i * 7) % 60] for i, row in enumerate(islice(reader, 2_500)))
    base = default_definition()
    definition = msgspec.structs.replace(base, fields=(*base.fields, NEW))
    store = Store(top / "store")
    (made,) = train(open_book(top / "book.csv"), definition, store, ("additive",), fast=True)
    return store.root, made.version


def test_a_field_of_another_version_is_ignored_again(
    wider: tuple[Path, str], tmp_path: Path, loan: dict[str, Any], database: Database, run: Run
) -> None:
    """Also once that version is gone, and nobody knows the field any more."""
    shutil.copytree(wider[0], tmp_path / "store")
    store, wide = Store(tmp_path / "store"), wider[1]
    old = next(v for v in store.versions() if store.manifest(v).candidate == "additive")
    store.promote(old)
    store.challenge(wide)
    client = service(store, database)
    unused = json.dumps(loan | {NEW.name: 0})
    for value in ("12", '"x"', "[1, {}]", "null", "1e400", "NaN", '"\\ud800"', "1" + "0" * 40):
        post(client, unused.replace(f'"{NEW.name}": 0', f'"{NEW.name}": {value}'))
    post(client, [json.loads(unused), loan])
    shutil.rmtree(store.root / "versions" / wide)
    code, report = replay(run, database)
    assert (code, report["identical"]) == (0, 10), report


def test_warnings_of_earlier_releases_have_no_suggested_numbers(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    store.promote(version_of("additive"))
    percent = loan | {"revol_util": 40}
    new, earlier, changed = post(service(store, database), [percent] * 3)
    warnings = kept_of(database, new).warnings
    assert warnings is not None
    hint = " (did you mean 0.40?)"
    assert hint in warnings
    alter(database, earlier, warnings=warnings.replace(hint, ""))
    alter(database, changed, warnings=warnings.replace(hint, hint.replace("0.40", "0.30")))
    code, report = replay(run, database)
    assert (code, report["identical"], report["different"]) == (1, 2, {"warnings": 1})
    assert [each["id"] for each in report["differences"]] == [changed]


@pytest.mark.parametrize("candidate", ["additive", "basic"])
def test_a_change_in_the_database_is_found_and_named(
    store: Store,
    version_of: VersionOf,
    loan: dict[str, Any],
    database: Database,
    run: Run,
    candidate: str,
) -> None:
    store.promote(version_of(candidate))
    decisions = post(service(store, database), [loan] * 12)
    kept = kept_of(database, decisions[0])
    changes: list[dict[str, Any]] = [
        {"margin": math.nextafter(kept.margin, 0)},
        {"margin": None},
        {"probability": kept.probability + 1e-9},
        {"late": not kept.late},
        {"band": (kept.band + 1) % 4},
        {"band": 17},
        {"reasons": "[]"},
        {"reasons": (kept.reasons or "").replace("contribution", "contributiön", 1)},
        {"warnings": '["int_rate: quite high"]'},
    ]
    unreadable = ['{"grade": "D"}', '{"grade": ']
    for decision, change in zip(decisions, changes, strict=False):
        alter(database, decision, **change)
    for decision, inputs in zip(decisions[len(changes) :], unreadable, strict=False):
        alter(database, decision, inputs=inputs)
    code, report = replay(run, database)
    assert (code, report["decisions"], report["identical"]) == (1, 12, 1)
    found = {each.pop("id"): each for each in report["differences"]}
    for decision, change in zip(decisions, changes, strict=False):
        ((field, changed),) = change.items()
        difference = found.pop(decision)
        assert difference["field"] == field
        was = getattr(kept, field)
        if field == "band":
            changed, was = BANDS[changed] if changed < 4 else changed, BANDS[was]
        assert (difference["kept"], difference["found"]) == (changed, was)
    assert not found
    counted = {"margin": 2, "probability": 1, "late": 1, "band": 2, "reasons": 2, "warnings": 1}
    assert report["different"] == counted
    assert report["unreadable"] == 2
    where = {each["id"]: each["why"] for each in report["unreadable_shown"]}
    assert list(where) == decisions[len(changes) :][:2]
    assert "loan_amnt: expected a number" in where[decisions[9]]
    assert "JSON" in where[decisions[10]]
    told = run("replay", ledger=url_of(database))
    assert told.returncode == 1
    for decision in decisions[:11]:
        assert f"{decision}: " in told.stdout
    assert decisions[11] not in told.stdout
    assert "1 of 12 decisions are identical" in told.stdout
    assert "2 × margin" in told.stdout
    assert "contributiön" in told.stdout, "what differs is shown, however long the value"
    assert "not every decision was reproduced" in told.stderr


def test_other_inputs_give_another_decision(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    store.promote(version_of("additive"))
    decisions = post(service(store, database), [loan] * 30)
    safer = json.dumps(loan | {"grade": "A", "int_rate": 0.06})
    for each in decisions[5:]:
        alter(database, each, inputs=safer)
    code, report = replay(run, database)
    assert (code, report["identical"]) == (1, 5)
    assert report["different"]["margin"] == report["different"]["probability"] == 25
    assert len(report["differences"]) == 20, "the first of them"
    told = run("replay", ledger=url_of(database)).stdout
    total = sum(report["different"].values())
    assert f"and {total - 20} more differences" in told
    assert "25 × margin" in told


def test_a_threshold_that_was_changed_is_found(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    store.promote(version_of("additive"))
    post(service(store, database), [loan] * 2)
    with database.writing() as connection:
        connection.execute(update(tables.versions).values(threshold=0.5))
    code, report = replay(run, database)
    assert (code, report["different"]) == (1, {"threshold": 2})


def test_a_version_that_is_missing_or_changed_is_named(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    additive, basic = version_of("additive"), version_of("basic")
    store.promote(additive)
    client = service(store, database)
    post(client, [loan] * 3)
    store.promote(basic)
    post(service(store, database), [loan] * 2)
    folder = store.root / "versions" / additive
    shutil.move(folder, store.root.parent / "aside")
    code, report = replay(run, database)
    assert (code, report["identical"]) == (1, 2)
    (missing,) = report["versions"]
    assert (missing["version"], missing["decisions"]) == (additive, 3)
    assert "no version" in missing["why"]
    told = run("replay", ledger=url_of(database)).stdout
    assert "3 decisions refer to it" in told
    # A manifest that is another one, though it is a whole version.
    shutil.move(store.root.parent / "aside", folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["created"] = "2020-01-01T00:00:00+00:00"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(store.root / "aliases")  # which would tell, too
    code, report = replay(run, database)
    (missing,) = report["versions"]
    assert (code, missing["version"], missing["decisions"]) == (1, additive, 3)
    assert "is not the version that decided" in missing["why"]


def test_ids_that_are_not_there_or_were_purged_are_named(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    store.promote(version_of("additive"))
    kept, purged = post(service(store, database), [loan] * 2)
    alter(database, purged, inputs=None, margin=None, band=None)
    unknown = id_text(IdGenerator().new())
    code, report = replay(run, database, "--id", kept, "--id", purged, "--id", unknown)
    assert (code, report["identical"]) == (1, 1)
    assert report["absent"] == [
        {"id": purged, "why": "was purged"},
        {"id": unknown, "why": "is not in the ledger"},
    ]
    assert f"{purged}: was purged" in run("replay", "--id", purged, ledger=url_of(database)).stdout
    assert replay(run, database)[0] == 0, "a purged decision asks for nothing"


def test_only_the_decisions_of_a_time(
    store: Store, version_of: VersionOf, loan: dict[str, Any], database: Database, run: Run
) -> None:
    version = version_of("additive")
    store.promote(version)
    (decision,) = post(service(store, database), loan)
    kept = kept_of(database, decision)
    chain = Chain(database, Seal(store.root.parent / "peerloan-seal"))
    days = [1_700_000_000_000 + day * 86_400_000 for day in range(4)]  # 2023-11-14T22:13:20Z …
    for number, day in enumerate(days):
        made = (day << 80 | 7 << 76 | 2 << 62 | number).to_bytes(16)
        values = {name: getattr(kept, name) for name in Record._fields if name != "id"}
        chain.append([Entry([Record(made, **values)])])
    chain.close()
    for arguments, count in (
        ([], 5),
        (["--since", "2024-01-01"], 1),
        (["--until", "2024-01-01"], 4),
        (["--since", "2023-11-15T22:13:20Z", "--until", "2023-11-16T23:13:20.001+01:00"], 2),
        (["--since", "2023-11-15", "--until", "2023-11-16"], 1),
        (["--since", "2100-01-01"], 0),
    ):
        code, report = replay(run, database, *arguments)
        assert (code, report["identical"], report["decisions"]) == (0, count, count), arguments
    told = run("replay", "--since", "2099-01-01", ledger=url_of(database))
    assert (told.returncode, told.stdout.count("nothing was replayed")) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "expected a day or a moment"),
        (["--until", "2026-11-25T08:30:00"], "expected a day or a moment"),
        (["--id", "17"], "expected the id of a decision"),
        (
            ["--id", id_text(IdGenerator().new()), "--since", "2026-11-25"],
            "--since or --until; leave these out",
        ),
    ],
)
def test_what_can_not_be_asked_is_wrong_use(run: Run, arguments: list[str], words: str) -> None:
    done = run("replay", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_without_a_ledger_there_is_nothing_to_replay(run: Run, tmp_path: Path) -> None:
    done = run("replay", ledger=f"sqlite:///{tmp_path / 'none.db'}")
    assert done.returncode == 1
    assert "contains no ledger yet" in done.stderr
    done = run("replay", ledger="postgresql://peerloan@127.0.0.1:1/ledger")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# Formats, runtimes


def lender(folder: Path, kind: str, runtime: str | None = None) -> Store:
    """A store with the tiny version of a kind, made under a runtime, as its champion."""
    source = next(p for p in (FORMATS / f"format-1-{kind}").iterdir() if p.is_dir())
    store = Store(folder / "store")
    target = store.root / "versions" / source.name
    shutil.copytree(source, target)
    if runtime is not None:
        manifest = json.loads((target / "manifest.json").read_bytes())
        manifest["libraries"]["onnxruntime"] = runtime
        (target / "manifest.json").write_text(json.dumps(manifest))
    store.promote(source.name)
    return store


@pytest.mark.parametrize("kind", ["scorecard", "onnx"])
def test_every_format_is_replayed(tmp_path: Path, database: Database, run: Run, kind: str) -> None:
    store = lender(tmp_path, kind)
    expected = json.loads((FORMATS / f"format-1-{kind}" / "expected.json").read_bytes())
    client = service(store, database)
    loans = [each["loan"] | {"contract no.": i} for i, each in enumerate(expected)]
    decisions = [each for body in (*loans, loans) for each in post(client, body)]
    code, report = replay(run, database)
    assert (code, report["identical"]) == (0, len(decisions)), report


def test_another_runtime_may_differ_a_little_and_that_is_told(
    tmp_path: Path, database: Database, run: Run
) -> None:
    store = lender(tmp_path, "onnx", runtime="0.0.1")
    loan = {"income.monthly": 999.0, "open loans": 3, "Möbel": "lamp", "rating": "C"}
    decisions = post(service(store, database), [loan] * 4)
    kept = kept_of(database, decisions[0])
    assert kept.reasons is not None
    alter(database, decisions[0], probability=kept.probability + 9e-7, margin=kept.margin + 2**-32)
    moved = json.loads(kept.reasons)
    moved[0]["contribution"] += 2**-32
    alter(database, decisions[1], reasons=json.dumps(moved))
    code, report = replay(run, database)
    assert (code, report["identical"], report["near"]) == (0, 2, 2)
    told = run("replay", ledger=url_of(database))
    assert told.returncode == 0
    assert "2 differ by at most 1e-06 in the probability" in told.stdout
    # What decides, or is said, may not differ.
    alter(database, decisions[0], late=not kept.late)
    moved[0]["sentence"] = "Because."
    alter(database, decisions[1], reasons=json.dumps(moved))
    alter(database, decisions[2], probability=kept.probability + 2e-6)
    alter(database, decisions[3], reasons='{"feature"')
    code, report = replay(run, database)
    assert (code, report["identical"], report["near"]) == (1, 0, 0)
    assert {each["id"] for each in report["differences"]} == set(decisions)


def test_under_the_recorded_runtime_nothing_may_differ(
    tmp_path: Path, database: Database, run: Run
) -> None:
    import onnxruntime

    store = lender(tmp_path, "onnx", runtime=onnxruntime.__version__)
    loan = {"income.monthly": 999.0, "open loans": 3, "Möbel": "lamp", "rating": "C"}
    (decision,) = post(service(store, database), loan)
    kept = kept_of(database, decision)
    assert replay(run, database)[0] == 0
    alter(database, decision, probability=kept.probability + 1e-9)
    code, report = replay(run, database)
    assert (code, report["near"], report["different"]) == (1, 0, {"probability": 1})


# Any loan


DEFINITION = default_definition()
_TEXTS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)


def _values(field: Field) -> st.SearchStrategy[Any]:
    """What a field may be given, and beyond."""
    if field.is_number:
        numbers = st.one_of(
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(-3, 10**20),
            st.sampled_from([0.0, -0.0, 0.0531, 0.1306, 1e-300]),
        )
        if field.seen_range is not None:
            numbers |= st.floats(*field.seen_range)
        if field.kind == "whole":
            numbers = st.integers(0, 30) | st.sampled_from([-0.0, 3.0])
        return numbers | st.none() if field.missing else numbers
    levels = st.sampled_from(field.levels)
    texts = levels | _TEXTS if field.kind == "category" else levels
    return texts | st.none() if field.missing else texts


LOANS = st.fixed_dictionaries(
    {field.name: _values(field) for field in DEFINITION.fields if not field.missing},
    optional={field.name: _values(field) for field in DEFINITION.fields if field.missing}
    | {"loan_id": st.none() | _TEXTS | st.integers(0, 10**30)},
)


@pytest.fixture(scope="module", params=["additive", "basic"])
def asked(
    request: pytest.FixtureRequest, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, Database, FlaskClient]:
    """A service of a version, with a ledger of its own."""
    top = tmp_path_factory.mktemp("asked")
    shutil.copytree(trained, top / "store")
    store = Store(top / "store")
    candidates = {store.manifest(v).candidate: v for v in store.versions()}
    store.promote(candidates[request.param])
    database = Database(f"sqlite:///{top / 'peerloan-ledger' / 'ledger.db'}")
    return store, database, service(store, database)


@given(loan=LOANS, ascii_only=st.booleans())
@example(loan={f.name: f.default for f in DEFINITION.fields}, ascii_only=True)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_accepted_replays(
    asked: tuple[Store, Database, FlaskClient], loan: dict[str, Any], ascii_only: bool
) -> None:
    store, database, client = asked
    body = json.dumps(loan, ensure_ascii=ascii_only)
    answer = client.post("/v1/predictions", data=body.encode(), content_type="application/json")
    accepted = not Checks(DEFINITION).loan(loan).problems
    assert (answer.status_code == 200) == accepted, answer.text
    if accepted:
        assert answer.json is not None
        replaying = Replay(store)
        replaying.add([kept_of(database, answer.json["id"])])
        assert replaying.report.identical == replaying.report.decisions == 1
