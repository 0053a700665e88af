"""A column may have any name that a definition takes: such names work wherever they are met."""

from __future__ import annotations

import csv
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import requests

from helpers.another_lender import Form
from helpers.commands import Run
from helpers.csv_files import write_csv
from helpers.probes import figures
from helpers.service import Serve, Service
from peerloan.loan import Definition, Field, Label, Roles, parse_definition
from peerloan.loan.definition import DefinitionError
from peerloan.registry import Store

ROWS = 300
LABEL, ID, DATE, EXPOSURE = 'out"come\\', 'i"d', "day\\", 'e"x: \\"'
# Quotes and backslashes, what Python, JavaScript, HTML, Jinja, formats, paths and spreadsheets
# take for their own, and texts that look alike or turn those around them.
NUMBERS = (
    'say "rate"',
    "back\\slash",
    "\\",
    '"',
    '\\"',
    "\\u0041",
    "__class__",
    "self",
    "lambda",
    "dotted.name",
    "a",
    "a: b",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "שלום\u200f",
    "\u202egnp",
    "line\u2028separator",
    "😀",
    "x" * 200,
    " spaced ",
    "%s %(x)s {0}",
    "a,b;c\u00a0d",
    "a/b?c=d&e#f",
    "field.x",
    "f0",
    "=1+1",
    "_",
)
TEXTS = ("__proto__", "constructor", "it's <b>\"&amp;</b>", "{{ name }} {% if %}", "None", 'q"\\')
LEVELS = ('l"1"', "back\\", "<script>", "__proto__", "True\u2028", "\u202e😀")
COLUMNS = (*NUMBERS, *TEXTS)


def toml(definition: Definition) -> str:
    """The definition as a file: JSON's texts are TOML's."""
    lines = [f"model = {json.dumps(definition.model)}", "[label]"]
    lines += [
        f"{key} = {json.dumps(getattr(definition.label, key))}"
        for key in ("column", "late", "on_time")
    ]
    lines += ["[roles]"]
    lines += [f"{key} = {json.dumps(getattr(definition.roles, key))}" for key in ("id", "date")]
    lines += [f"exposure = {json.dumps(definition.roles.exposure)}"]
    for field in definition.fields:
        lines += ["[[field]]", f"name = {json.dumps(field.name, ensure_ascii=False)}"]
        lines += [f"kind = '{field.kind}'", f"label = {json.dumps(field.label)}"]
        if field.levels:
            lines += [f"levels = {json.dumps(field.levels, ensure_ascii=False)}"]
        if field.missing:
            lines += ["missing = true"]
    return "\n".join(lines)


def defined() -> Definition:
    fields = [Field(name, "number", f"Number {i}") for i, name in enumerate(NUMBERS)]
    fields += [
        Field(name, "ordered" if i == 1 else "category", f"Text {i}", levels=LEVELS, missing=i > 3)
        for i, name in enumerate(TEXTS)
    ]
    label = Label(LABEL, late='b"a\\d', on_time="good")
    return Definition("hostile", label, tuple(fields), Roles(ID, DATE, EXPOSURE))


def table() -> list[dict[str, Any]]:
    draw = random.Random(5)
    made = []
    for i in range(ROWS):
        row: dict[str, Any] = {name: round(draw.gauss(10, 3), 2) for name in NUMBERS}
        row |= {name: draw.choice(LEVELS) for name in TEXTS}
        risk = 0.05 + 0.3 * (row['say "rate"'] > 11) + 0.3 * (row["__proto__"] == LEVELS[0])
        row |= {ID: f'L"{i}', DATE: "2026-01-05", EXPOSURE: draw.randint(1, 9) * 1_000}
        made.append(row | {LABEL: 'b"a\\d' if draw.random() < risk else "good"})
    return made


def done(run: Run, *arguments: object) -> str:
    finished = run(*arguments)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    return finished.stdout + finished.stderr


def infer_request(loans: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "inputs": [
            {
                "name": name,
                "shape": [len(loans), 1],
                "datatype": "FP64" if name in NUMBERS else "BYTES",
                "data": [loan[name] for loan in loans],
            }
            for name in COLUMNS
        ]
    }


def test_names_of_any_kind_go_the_whole_way(tmp_path: Path, run: Run, serve: Serve) -> None:
    rows = table()
    write_csv(tmp_path / "book.csv", rows)
    (tmp_path / "loan.toml").write_text(toml(defined()), encoding="utf-8")
    assert parse_definition(toml(defined()), "test") == defined()
    done(run, "check", "book.csv", "--definition", "loan.toml")
    done(run, "explore", "book.csv", "--definition", "loan.toml", "-o", "report.html")
    done(
        *(run, "train", "book.csv", "--definition", "loan.toml", "--quick", "--promote"),
        *("--candidate", "additive"),
    )
    store = Store(tmp_path / "store")
    champion = str(store.state().champion)
    assert store.definition(champion).names == COLUMNS
    assert "verified" in done(run, "models", "verify", champion)

    loans = [{name: row[name] for name in COLUMNS} for row in rows[:20]]
    service = serve(store)
    probabilities = predictions_of(service, loans)
    page_decides(service, rows[0], probabilities[0])
    protocol = requests.post(
        f"{service.url}/v2/models/hostile/infer", json=infer_request(loans), timeout=30
    )
    assert protocol.status_code == 200, protocol.text
    outputs = {each["name"]: each["data"] for each in protocol.json()["outputs"]}
    assert outputs["probability"] == probabilities
    told = {"outcomes": [{"id": outputs["id"][0], "late": True}]}
    assert requests.post(f"{service.url}/v1/outcomes", json=told, timeout=10).ok

    done(run, "score", "book.csv", "-o", "scored.csv", "--record")
    with (tmp_path / "scored.csv").open(newline="", encoding="utf-8") as file:
        scored = list(csv.DictReader(file))
    assert [float(each["probability"]) for each in scored[:20]] == probabilities
    assert [each['q"\\'] for each in scored] == [row['q"\\'] for row in rows]
    assert "decisions are identical, bit for bit" in done(run, "replay")
    watched = json.loads(run("monitor", "--json").stdout)
    assert [each["feature"] for each in watched["features"]] == list(COLUMNS)
    assert watched["window"]["loans"] >= ROWS
    done(run, "monitor", "--book", "book.csv")
    done(run, "ledger", "export", "-o", "ledger.csv")
    with (tmp_path / "ledger.csv").open(newline="", encoding="utf-8") as file:
        exported = next(csv.DictReader(file))
    assert set(COLUMNS) <= set(exported)


def predictions_of(service: Service, loans: list[dict[str, Any]]) -> list[float]:
    """What the API says of them, the same one by one, as a list and in columns."""
    address = f"{service.url}/v1/predictions"
    columns = {name: [loan[name] for loan in loans] for name in COLUMNS}
    found = []
    for body in (loans, columns):
        answer = requests.post(address, json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        found.append([each["probability"] for each in answer.json()["predictions"]])
    one = requests.post(f"{address}?contributions=all", json=loans[0], timeout=10).json()
    assert set(one["contributions"]) == set(COLUMNS)
    assert found[0] == found[1]
    assert one["probability"] == found[0][0]
    kept = requests.get(f"{address}/{one['id']}", timeout=10).json()
    assert kept["inputs"] == loans[0]
    wrong = requests.post(address, json=loans[0] | {'q"\\': 5, "\\": "x", 'no"ne': 1}, timeout=10)
    assert wrong.status_code == 422
    assert {each["field"] for each in wrong.json()["errors"]} >= {"\\", 'no"ne'}
    document = requests.get(f"{service.url}/openapi.json", timeout=10).json()
    assert set(COLUMNS) <= set(document["components"]["schemas"]["Loan"]["properties"])
    return found[0]


def page_decides(service: Service, row: dict[str, Any], probability: float) -> None:
    """The form has each field, and its decision is the API's."""
    form = Form(requests.get(service.url, timeout=10).text)
    assert list(form.ids) == [f"field.{name}" for name in COLUMNS]
    assert set(form.levels["field.__proto__"]) >= set(LEVELS)
    sent = {f"field.{name}": str(row[name]) for name in COLUMNS} | {"action": "form"}
    decided = requests.post(service.url, data=sent, timeout=10)
    assert decided.status_code == 200, decided.text
    assert f'id="probability">{100 * probability:.2f} %' in decided.text
    odd = requests.post(service.url, data=sent | {"field.a: b": "9999"}, timeout=10)
    assert "Number 11: 9,999 is outside the range" in Form(odd.text).text
    # It is counted for its field, although another field's name and a colon begin the same.
    service.wait_for(lambda: bool(figures(service, "peerloan_unseen_values_total")))
    assert figures(service, "peerloan_unseen_values_total") == {("a: b",): 1}


@pytest.mark.parametrize("name", ["", "a\nb", "a\x00b", "a\x7fb", "a\x85b", "x" * 201])
def test_what_no_program_could_carry_is_refused_in_the_definition(name: str) -> None:
    valid = toml(defined())
    for own, key in (("_", "field.name"), (ID, "roles.id"), (LABEL, "label.column")):
        with pytest.raises(
            DefinitionError, match=r"expected .*characters|expected text"
        ) as refused:
            parse_definition(
                valid.replace(f" = {json.dumps(own)}\n", f" = {json.dumps(name)}\n"), "loan.toml"
            )
        assert key in str(refused.value)
        assert "\n" not in str(refused.value)
