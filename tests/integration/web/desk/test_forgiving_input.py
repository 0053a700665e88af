"""The page reads what people type and paste, and shows what it understood."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.ledgers import url_of
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.ledger.audit.replay import Replay
from peerloan.ledger.queries import stream_decisions
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.settings import Settings
from peerloan.web.desk.pasted import PasteError, read_pasted

DEFINITION = default_definition()
LOAN: dict[str, Any] = {
    "loan_amnt": 12000,
    "int_rate": 0.1306,
    "purpose": "debt_consolidation",
    "grade": "B",
    "annual_inc": 65000,
    "revol_util": None,
    "emp_length": "< 1 year",
    "dti": 14.46,
    "delinq_2yrs": 0,
    "home_ownership": "RENT",
}
# Of a spreadsheet, in the order of the fields.
CELLS = (
    *("$12,000", "13.06%", "Debt consolidation", "b", "65.000,00 €", "", "<1 year"),
    *("14,46", "0", "Rent"),
)
LABELS = [field.label for field in DEFINITION.fields]
PANDAS = (
    "{'loan_amnt': np.float64(12000.0), 'int_rate': 0.1306, 'purpose': np.str_('debt_consolidation'"
    "), 'grade': 'B', 'annual_inc': np.int64(65000), 'revol_util': nan, 'emp_length': '< 1 year', "
    "'dti': 14.46, 'delinq_2yrs': 0, 'home_ownership': 'RENT'}"
)
FORMS = {
    "JSON": json.dumps(LOAN),
    "JSON with NaN": json.dumps(LOAN | {"revol_util": float("nan")}),
    "a Python dictionary": repr(LOAN),
    "pandas": PANDAS,
    "pandas' columns": repr({name: {0: value} for name, value in LOAN.items()}),
    "a row of tabs": "\t".join(CELLS) + "\n",
    "a row of semicolons": ";".join(CELLS),
    "a row of commas": ",".join(f'"{cell}"' for cell in CELLS),
    "a header and a row": "\t".join(LABELS) + "\r\n" + "\t".join(CELLS) + "\r\n",
    "CSV with an index": "," + ",".join(LOAN) + "\n0," + ",".join(f'"{c}"' for c in CELLS),
    "lines with a colon": "\n".join(map(": ".join, zip(LABELS, CELLS, strict=True))),
    "lines with an equals sign": "\n\n".join(map(" = ".join, zip(LOAN, CELLS, strict=True))),
    "lines with a tab": "\n".join(map("\t".join, zip(LOAN, CELLS, strict=True))),
    "JSON without braces": json.dumps(LOAN, indent=1).strip("{}"),
}


@pytest.fixture
def client(store: Store, version_of: VersionOf, database: Database, tmp_path: Path) -> FlaskClient:
    """A service with a ledger."""
    store.promote(version_of("additive"), "the first", first=True)
    chosen = Settings(store.root, tmp_path / "tokens", url_of(database))
    return create_app(chosen, on_loopback=True).test_client()


def kept(database: Database) -> list[dict[str, Any]]:
    """The inputs in the ledger."""
    return [json.loads(each.inputs) for some in stream_decisions(database) for each in some]


def post(client: FlaskClient, data: dict[str, str], status: int = 200) -> str:
    """The page after a form was sent, without HTML's escapes."""
    answer = client.post("/", data=data)
    assert answer.status_code == status, answer.text
    return html.unescape(answer.text)


def form(**changes: str) -> dict[str, str]:
    """The page's form with a valid loan and these values."""
    texts = {name: "" if value is None else str(value) for name, value in LOAN.items()}
    return {f"field.{name}": value for name, value in (texts | changes).items()}


def test_a_form_may_be_filled_in_as_people_write(
    client: FlaskClient, database: Database, store: Store
) -> None:
    page = post(
        client,
        form(loan_amnt="12,000", int_rate="13.06%", annual_inc="$65,000", dti="14,46", grade=" b "),
    )

    assert kept(database) == [{name: value for name, value in LOAN.items() if value is not None}]
    for reading in (
        "'12,000' was read as 12000.",
        "'13.06%' was read as 0.1306.",
        "'$65,000' was read as 65000.",
        "'14,46' was read as 14.46.",
        "' b ' was read as B.",
    ):
        assert page.count(reading) == 1
    assert page.count("was read as") == 5
    assert 'value="0.1306"' in page
    replay = Replay(store)
    for some in stream_decisions(database):
        replay.add(some)
    assert (replay.report.identical, replay.report.decisions) == (1, 1)


def test_an_unclear_value_asks_and_nothing_is_stored(
    client: FlaskClient, database: Database
) -> None:
    page = post(client, form(loan_amnt="5%", int_rate="130%", dti="14,46"), 422)

    assert "without '%': it is not a percentage" in page
    assert "Given: '130%', read as 1.3." in page
    # What was typed remains.
    assert 'value="5%"' in page
    assert 'value="130%"' in page
    assert "'14,46' was read as 14.46." in page
    assert kept(database) == []


def test_a_number_as_the_form_shows_it_has_no_note(client: FlaskClient) -> None:
    assert "was read as" not in post(client, form())


@pytest.mark.parametrize("name", FORMS)
def test_a_loan_may_be_pasted_in_any_form(
    client: FlaskClient, database: Database, name: str
) -> None:
    page = post(client, {"action": "paste", "pasted": FORMS[name]})

    (stored,) = kept(database)
    assert stored == LOAN
    assert 'id="probability"' in page


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "neither JSON, nor a Python dictionary, nor a row of a table with 10 cells"),
        ("__import__('os').getcwd()", "neither JSON"),
        ("", "Nothing was pasted"),
        ("1\t2\t3", "given 3 cells, separated by tabs. Add a line with the names."),
        ("\t".join(CELLS) + "\n" + "\t".join(CELLS), "neither JSON"),
        (",".join(LOAN), "Expected a header and one row, given a header and 0 rows."),
        (",".join(LOAN) + "\n1\n2", "given a header and 2 rows. For several loans, use the API"),
        (",".join(LOAN) + "\n1,2", "given 10 names and 2 cells"),
        ("dti: 5\nDTI: 6\nhello", "in line 3, given 'hello'"),
        ("dti: 5\ndti: 6", "Expected each name once, given 'dti' twice."),
        ("{'dti': 1, 'dti': 2}", "it has the name 'dti' more than once"),
        ("{'dti': 1, **x}", "it has null in place of a name"),
        ("{'dti': open('x')}", "it has \"open('x')\", which is not a number or a text"),
        ("{'dti': np.array([1])}", "which is not a number or a text"),
        ("{'dti': np.float64([1])}", "in place of a number or a text"),
        ("{'dti': os.nan}", "it has 'os.nan'"),
        ("{'dti': 5,\n  x y}", "it can't be read from line 2"),
        ("{'dti': [1, 2]}", "given 2 values of 'dti'"),
        ("{'dti': {}}", "given an empty dictionary"),
        ("[1, 2]", "Expected one loan"),
        ('{"dti": 1, "dti": 2}', "dti: expected each name once"),
        ("dti: " + "1" * 100_000, "at most 100,000 characters"),
    ],
)
def test_what_is_not_a_loan_is_named(client: FlaskClient, text: str, message: str) -> None:
    with pytest.raises(PasteError, match=r"\.$") as refused:
        read_pasted(text, DEFINITION)

    assert message in str(refused.value)
    assert message in post(client, {"action": "paste", "pasted": text}, 422)


def test_numbers_of_python_keep_their_values() -> None:
    text = "{'a': -1, 'b': +2.5, 'c': np.float32(0.5), 'd': float('inf'), 'e': np.bool_(True)}"

    assert read_pasted(text, DEFINITION) == {"a": -1, "b": 2.5, "c": 0.5, "d": "inf", "e": True}


def test_two_names_of_one_field_are_refused(client: FlaskClient) -> None:
    text = json.dumps(LOAN | {"Debt to income": 5})

    page = post(client, {"action": "paste", "pasted": text}, 422)

    assert "Expected one name for this field. Given: 'dti' and 'Debt to income'." in page
