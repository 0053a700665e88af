"""The same loan gets the same decision however its values are spelled, from every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.drafts import hand_made
from peerloan.book import open_book, read_loans
from peerloan.cli.main import peerloan
from peerloan.database import Database
from peerloan.ledger import Chain, Entry, Record, Seal, Version
from peerloan.ledger.audit.replay import Replay
from peerloan.ledger.queries import find_decisions, stream_decisions
from peerloan.ledger.records import encode_or_null, warnings_json
from peerloan.loan import Checks, Definition, Field, Label, Loans, Roles, Value
from peerloan.model import LevelTable, NumberTable, Policy, Scorecard
from peerloan.model.arithmetic import to_unit
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.registry import Bundle, Store
from peerloan.settings import Settings
from peerloan.uuid7 import IdGenerator
from peerloan.uuid7 import text as id_text

NAMES = ("amount", "region", "home", "stage")
# One value in each of its spellings: as text, and as JSON and Arrow have it.
REGION: list[Any] = ["11", "11.0", "11.00", 11, 11.0]
HOME: list[Any] = ["true", "True", "TRUE", True]
STAGE: list[Any] = ["2", "2.0", 2, 2.0]


def definition(region: Iterable[str], home: Iterable[str], stage: Iterable[str]) -> Definition:
    """A lender's definition, as a training table of these texts left it."""
    return Definition(
        model="spelled",
        label=Label("was_late", 1, 0),
        roles=Roles(id="loan_no"),
        fields=(
            Field("amount", "number", "Amount"),
            Field("region", "category", "Region", levels=tuple(region), seen=tuple(region)),
            Field("home", "category", "Home", levels=("False", "True"), seen=tuple(home)),
            Field("stage", "ordered", "Stage", levels=tuple(stage)),
        ),
    )


# What releases before wrote of a CSV of doubles and of Python's truths, and of Parquet; and both in
# one table.
TRAINED = {
    "csv": definition(("11.0", "12.0"), ("True", "False"), ("1.0", "2.0")),
    "parquet": definition(("11", "12"), ("true", "false"), ("1", "2")),
    "mixed": definition(("11.0", "12.0", "11", "12"), ("True", "False", "true"), ("1.0", "2.0")),
}


def publish(store: Store, spelled: Definition) -> str:
    """A version that was trained on these levels, every one of which has points of its own."""
    levels_of = spelled.fields[1:]

    def levels(field: Field) -> LevelTable:
        names = field.seen_levels
        points = tuple(float(to_unit(0.3 * (i + 1))) for i in range(len(names)))
        return LevelTable(field.name, names, points, float(to_unit(-1.5)), 0.0)

    card = Scorecard(
        float(to_unit(-1.0)),
        (
            NumberTable("amount", (1000.0,), (0.0, float(to_unit(0.25))), 0.0),
            *map(levels, levels_of),
        ),
    )
    rows: list[tuple[Value, ...]] = [
        (float(100 * i), *(each.seen_levels[i % len(each.seen_levels)] for each in levels_of))
        for i in range(40)
    ]
    loans = Loans.of(spelled, rows)
    late = np.arange(40) % 5 == 0
    made = hand_made(spelled, card, loans, late.astype(np.float64), Policy.by_cost(8.0))
    version = store.publish(made)
    store.promote(version)
    return version


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "store")


@pytest.fixture(params=list(TRAINED))
def bundle(request: pytest.FixtureRequest, store: Store) -> Bundle:
    """A champion that knows the levels by one spelling or another."""
    return store.load(publish(store, TRAINED[request.param]))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """An empty ledger."""
    found = Database(f"sqlite:///{tmp_path / 'peerloan-ledger' / 'ledger.db'}")
    found.upgrade()
    return found


@pytest.fixture
def client(tmp_path: Path, bundle: Bundle, database: Database) -> FlaskClient:
    """The service over both."""
    url = database.url.render_as_string(hide_password=False)
    chosen = Settings(tmp_path / "store", tmp_path / "tokens", url)
    return create_app(chosen, on_loopback=True).test_client()


def expected(bundle: Bundle, *values: Any) -> float:
    """The probability of a loan of these values: an exact text has the points of its own level."""

    def own(field: Field, value: Any) -> str:
        levels = field.seen_levels
        if isinstance(value, str) and value in levels:
            return value
        whole = str(value).partition(".")[0].lower()
        return next(x for x in (whole, f"{whole}.0", whole.title()) if x in levels)

    fields = bundle.definition.fields[1:]
    levels = (own(*each) for each in zip(fields, values, strict=True))
    return bundle.decide((500.0, *levels)).probability


def post(client: FlaskClient, path: str, body: object) -> Any:
    answer = client.post(path, data=json.dumps(body), content_type="application/json")
    assert answer.status_code == 200, answer.text
    return answer.json


def score(folder: Path, book: Path, *options: str) -> list[dict[str, str]]:
    out = folder / f"{book.name}.scored.csv"
    arguments = ["score", str(book), "-o", str(out), "--overwrite", *options]
    settings = {"PEERLOAN_STORE": str(folder / "store"), "PEERLOAN_LEDGER": ""}
    done = CliRunner().invoke(peerloan, arguments, env=settings)
    assert done.exit_code == 0, (done.output, done.exception)
    with out.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def replayed(store: Store, database: Database) -> Replay:
    replay = Replay(store)
    for some in stream_decisions(database):
        replay.add(some)
    return replay


def test_a_request_may_spell_a_value_in_any_way(
    client: FlaskClient, bundle: Bundle, store: Store, database: Database
) -> None:
    loans = [
        {"amount": 500, "region": region, "home": home, "stage": stage, "loan_no": 7.0}
        for region in REGION
        for home in HOME
        for stage in STAGE
    ]
    wanted = [expected(bundle, *(loan[name] for name in NAMES[1:])) for loan in loans]
    told = post(client, "/v1/predictions", loans)["predictions"]
    told += [post(client, "/v1/predictions", loan) for loan in loans]
    columns = {name: [loan[name] for loan in loans] for name in loans[0]}
    told += post(client, "/v1/predictions", columns)["predictions"]
    assert [each["probability"] for each in told] == wanted * 3
    assert {each["loan_id"] for each in told} == {"7"}
    assert all(each["warnings"] == [] for each in told)
    report = replayed(store, database).report
    assert (report.identical, report.decisions) == (len(told), len(told))


def test_many_loans_get_the_reasons_that_each_alone_gets(
    client: FlaskClient, bundle: Bundle
) -> None:
    """Of texts alone: a request that also has numbers and booleans is read in another way."""
    stage = bundle.definition.fields[3].levels[1]
    loans = [
        {"amount": 1500, "region": region, "home": home, "stage": stage}
        for region, home in (("12.00", "FALSE"), ("11.00", "TRUE"))
    ]
    path = "/v1/predictions"
    alone = [post(client, path, loan)["reasons"] for loan in loans]
    assert all(alone)
    columns = {name: [loan[name] for loan in loans] for name in loans[0]}
    for body in (loans, columns):
        together = post(client, path, body)["predictions"]
        assert [prediction["reasons"] for prediction in together] == alone


def test_tensors_may_spell_a_value_in_any_way(client: FlaskClient, bundle: Bundle) -> None:
    kinds: list[tuple[str, list[Any], str, list[Any], str, list[Any]]] = [
        ("BYTES", ["11", "11.0"], "BYTES", ["True", "true"], "BYTES", ["2", "2.0"]),
        ("INT64", [11, 11], "BOOL", [True, True], "INT64", [2, 2]),
        ("FP64", [11.0, 11.0], "BYTES", ["TRUE", "True"], "FP32", [2.0, 2.0]),
    ]
    for region_kind, regions, home_kind, homes, stage_kind, stages in kinds:
        inputs = [
            {"name": name, "shape": [2, 1], "datatype": datatype, "data": data}
            for name, datatype, data in (
                ("amount", "FP64", [500.0, 500.0]),
                ("region", region_kind, regions),
                ("home", home_kind, homes),
                ("stage", stage_kind, stages),
            )
        ]
        told = post(client, "/v2/models/spelled/infer", {"inputs": inputs})
        found = next(each for each in told["outputs"] if each["name"] == "probability")["data"]
        rows = zip(regions, homes, stages, strict=True)
        assert found == [expected(bundle, *row) for row in rows]


def test_a_number_that_is_no_level_is_refused(client: FlaskClient) -> None:
    loan = {"amount": 500, "region": 15, "home": "true", "stage": "2"}
    answer = client.post("/v1/predictions", json=loan)
    assert answer.status_code == 422
    assert "region: expected text of 1 to 200 characters" in answer.text
    tensor = {"name": "region", "shape": [1], "datatype": "INT64", "data": [15]}
    answer = client.post("/v2/models/spelled/infer", json={"inputs": [tensor]})
    assert answer.status_code == 400
    assert "region: expected BYTES" in answer.text


def test_the_form_may_spell_a_value_in_any_way(
    client: FlaskClient, bundle: Bundle, database: Database
) -> None:
    rows = list(zip(REGION[:3], HOME[:3], ["2", "2.0", "2.00"], strict=True))
    for region, home, stage in rows:
        form = {"field.amount": "500", "field.region": region, "field.home": home}
        page = client.post("/", data=form | {"field.stage": stage})
        assert page.status_code == 200, page.text
    loan = {"amount": 500, "region": 11, "home": True, "stage": 2.0}
    assert client.post("/", data={"action": "paste", "pasted": repr(loan)}).status_code == 200
    kept = [each for some in stream_decisions(database) for each in some]
    assert [each.source for each in kept] == ["page"] * 4
    assert [each.probability for each in kept] == [
        *(expected(bundle, *row) for row in rows),
        expected(bundle, 11, True, 2.0),
    ]
    assert all(each.warnings is None for each in kept)


def test_a_book_may_spell_a_value_in_any_way(tmp_path: Path, bundle: Bundle) -> None:
    rows = [
        (region, home, stage)
        for region in ("11", "11.0", "11.00")
        for home in ("true", "True", "TRUE")
        for stage in ("2", "2.0")
    ]
    with (tmp_path / "book.csv").open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *((500, *row) for row in rows)])
    found = [row["probability"] for row in score(tmp_path, tmp_path / "book.csv")]
    assert list(map(float, found)) == [expected(bundle, *row) for row in rows]

    homes = [pa.array([True]), pa.array([True]).dictionary_encode()]
    homes += [pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1], pa.int8()))]
    regions = [pa.array([11], kind) for kind in (pa.int8(), pa.uint64())]
    regions += [pa.array([11.0], kind) for kind in (pa.float16(), pa.float32(), pa.float64())]
    kinds = (pa.decimal128(9, 2), pa.decimal256(60, 5))
    regions += [pa.array([Decimal(11)], kind) for kind in kinds]
    regions += [pa.array([11.0]).dictionary_encode()]
    for i, region in enumerate(regions):
        columns = [pa.array([500.0]), region, homes[i % len(homes)], pa.array([2.0])]
        pq.write_table(pa.table(columns, NAMES), tmp_path / "book.parquet")
        (row,) = score(tmp_path, tmp_path / "book.parquet")
        assert float(row["probability"]) == expected(bundle, 11, True, 2), region.type


def test_a_recorded_book_replays_and_has_one_id_a_loan(
    tmp_path: Path, bundle: Bundle, store: Store, database: Database
) -> None:
    names = ("loan_no", *NAMES)
    ids = [pa.array([2001, 2002]), pa.array([2001.0, 2002.0]), pa.array(["2001", "2002.0"])]
    for each in ids:
        columns = [each, [500.0] * 2, [11.0, 12.0], [True, False], [2.0, 1.0]]
        pq.write_table(pa.table(columns, names), tmp_path / "book.parquet")
        score(tmp_path, tmp_path / "book.parquet", "--record")
    kept = [each for some in stream_decisions(database) for each in some]
    assert [each.loan_id for each in kept] == ["2001", "2002"] * 3
    report = replayed(store, database).report
    assert (report.identical, report.decisions) == (6, 6)


def test_a_large_id_has_the_same_digits_from_csv_and_json(
    tmp_path: Path, bundle: Bundle, database: Database, client: FlaskClient
) -> None:
    (tmp_path / "book.csv").write_text(
        f"loan_no,{','.join(NAMES)}\n143349558619761313.0,500,11,true,2\n"
    )
    line = '{"loan_no": %s, "amount": 500, "region": 11, "home": true, "stage": 2}'
    (tmp_path / "book.jsonl").write_text(line % "143349558619761313.0")
    for name in ("book.csv", "book.jsonl"):
        score(tmp_path, tmp_path / name, "--record")
    sent = {"content_type": "application/json"}
    answer = client.post("/v1/predictions", data=line % "143349558619761313", **sent)
    assert answer.status_code == 200
    refused = client.post("/v1/predictions", data=line % "143349558619761313.0", **sent)
    assert refused.status_code == 422
    assert "loses digits" in refused.get_json()["errors"][0]["expected"]
    kept = [decision for batch in stream_decisions(database) for decision in batch]
    assert [decision.loan_id for decision in kept] == ["143349558619761313"] * 3


def test_drift_counts_a_spelling_as_the_level_that_it_is(tmp_path: Path, bundle: Bundle) -> None:
    rows = [("11", "TRUE", "2.0"), ("12.00", "False", "1"), ("15.0", "false", "1")]
    with (tmp_path / "book.csv").open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *((500, *row) for row in rows)])
    (part,) = open_book(tmp_path / "book.csv").parts()
    loans = read_loans(bundle.definition, part).loans
    counting = BinCounter.of(bundle)
    counts = counting.count(loans, np.zeros(3), np.zeros(3, dtype=np.int64))[0]
    assert counts.strange[counting.names.index("region")] == {"15": 1}
    assert counts.strange[counting.names.index("home")] == {}


def test_decisions_of_releases_before_replay(
    tmp_path: Path, bundle: Bundle, store: Store, database: Database
) -> None:
    """They took another spelling for an unseen level, and ids whose digits were lost."""
    checks = Checks(bundle.definition, exact=True)
    stage = bundle.definition.fields[3].levels[1]
    records = []
    for region, home in (("11", "True"), ("11.0", "true"), ("12", "FALSE"), ("x", "no")):
        loan = {"amount": 500, "region": region, "home": home, "stage": stage}
        checked = checks.loan(loan)
        assert not checked.problems
        loan["loan_no"] = 143349558619761313.0
        decision = bundle.decide(checked.values)
        band = int(bundle.policy.bands_many(np.array([decision.margin]))[0])
        made = IdGenerator().new()
        who = (made, Version.of(bundle), "api", "someone", "request", None, None, json.dumps(loan))
        texts = encode_or_null(decision.reasons), warnings_json(checked.warnings)
        records.append(
            Record(*who, decision.margin, decision.probability, decision.late, band, *texts)
        )
    chain = Chain(database, Seal(tmp_path / "seal"))
    chain.append([Entry(records)])
    chain.close()
    report = replayed(store, database).report
    assert (report.identical, report.decisions) == (4, 4)
    # What was never so is told of.
    kept = list(find_decisions(database, [records[0].id]).values())
    replay = Replay(store)
    replay.add([kept[0]._replace(margin=kept[0].margin + 1.0)])
    assert (replay.report.ok, dict(replay.report.different)) == (False, {"margin": 1})
    assert replay.report.differences[0].id == id_text(UUID(bytes=records[0].id).bytes)
