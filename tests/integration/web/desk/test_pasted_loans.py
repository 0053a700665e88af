"""Whatever is typed or pasted into the page is answered, without a server or a browser."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.apps import create_app
from peerloan.formatting import probability_in_words
from peerloan.loan import default_definition
from peerloan.registry import Store
from peerloan.settings import Settings

FIELDS = default_definition().fields


@pytest.fixture(scope="module")
def client(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> FlaskClient:
    """The application without a server or a browser."""
    root = tmp_path_factory.mktemp("client") / "store"
    shutil.copytree(trained, root)
    store = Store(root)
    store.promote(store.versions()[0])
    return create_app(Settings(root), on_loopback=True).test_client()


def test_the_decision_answers_yes_or_no_and_says_what_the_probability_means(
    client: FlaskClient,
) -> None:
    example = {field.name: field.default for field in FIELDS}
    answers = set()
    for changed in ({"int_rate": 0.06, "annual_inc": 150_000}, {"int_rate": 0.3, "dti": 39.0}):
        loan = example | changed
        made = client.post("/v1/predictions", json=loan).get_json()
        sent = {"action": "paste", "pasted": json.dumps(loan)}
        page = client.post("/", data=sent).get_data(as_text=True)
        answer = "Yes" if made["late"] else "No"
        answers.add(answer)
        assert re.search(
            rf'Late in the next quarter\?\s*<span [^>]*id="late">{answer}</span>', page
        )
        assert f"<title>Late: {answer} · PeerLoan Risk</title>" in page
        meaning = re.search(r'<p id="meaning">([\d.]+) %: (.*)\.</p>', page)
        assert meaning is not None
        assert meaning[1] == f"{100 * made['probability']:.2f}"
        assert meaning[2] == probability_in_words(made["probability"])
    assert answers == {"Yes", "No"}


_text = st.text(st.characters(exclude_categories=()), max_size=30)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_text, inner, max_size=2),
    max_leaves=6,
)
_names = st.sampled_from([field.name for field in FIELDS])


@given(st.dictionaries(_names | _text, _values, max_size=4), st.booleans())
@example({"purpose": "\ud800"}, True)
@example({"\ud800": "\ud800"}, False)
def test_any_pasted_loan_is_answered(
    client: FlaskClient, loan: dict[str, object], as_json: bool
) -> None:
    text = json.dumps(loan) if as_json else ascii(loan)

    answer = client.post("/", data={"action": "paste", "pasted": text})

    assert answer.status_code in (200, 422)


@given(st.text(max_size=40), st.dictionaries(_names, st.text(max_size=40), max_size=4))
def test_any_text_in_form_and_box_is_answered(
    client: FlaskClient, text: str, values: dict[str, str]
) -> None:
    fields = {f"field.{name}": value for name, value in values.items()}
    for sent in ({"action": "paste", "pasted": text}, {"action": "form"} | fields):
        assert client.post("/", data=sent).status_code in (200, 422)


@pytest.mark.parametrize(
    "text",
    [
        "{'dti': 0x" + "f" * 90_000 + "}",
        "{'loan_id': 0x" + "f" * 90_000 + "}",
        "{'dti': 1" + "0" * 4_200 + "}",
        "[" * 99_000,
        '{"a":' * 16_000 + "1" + "}" * 16_000,
        '{"dti":' + "[" * 900 + "]" * 900 + "}",
        "{'dti': " + "(" * 150 + "1," + ")" * 150 + "}",
        "-" * 99_000 + "1",
        "1+" * 49_000 + "1",
        "{'dti': b'x', 'grade': 1+2j, 'purpose': {1, 2}, 'revol_util': ...}",
        "x" * 100_001,
        "{'a': '\0'}",
    ],
    ids=lambda text: text[:12],
)
def test_a_malicious_paste_is_answered(client: FlaskClient, text: str) -> None:
    assert client.post("/", data={"action": "paste", "pasted": text}).status_code == 422


def test_a_form_that_is_too_large_is_refused(client: FlaskClient) -> None:
    answer = client.post("/", data={"action": "paste", "pasted": "x" * 5_100_000})

    assert answer.status_code == 413
    assert "5 MB" in answer.text
