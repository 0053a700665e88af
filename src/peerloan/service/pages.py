"""The page where a person enters a loan and reads the decision."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, render_template, request

from peerloan.loan import Checked, Definition
from peerloan.loan.text import parse_number, show_given
from peerloan.service import api
from peerloan.service.answers import Wanted, answer_one
from peerloan.service.champion import Serving
from peerloan.service.problems import RequestError

blueprint = Blueprint("pages", __name__)
# A form's own names: a field could have the same, so a field's input is named with a prefix.
PREFIX = "field."
_MAX_PASTED = 100_000


@blueprint.get("/")
def empty_form() -> str:
    """The form, filled with the definition's defaults."""
    current = api.champion().current
    if current is None:
        return render_template("waiting.html", refusal=api.champion().refusal)
    given = {field.name: _input_text(field.default) for field in current.bundle.definition.fields}
    return _page(current, given)


@blueprint.post("/")
def decide() -> tuple[str, int]:
    """Decide on the loan in the form, or on the pasted one."""
    current = api.serving()
    definition = current.bundle.definition
    pasted = request.form.get("pasted", "")
    if request.form.get("action") == "paste":
        try:
            record = read_pasted(pasted)
        except ValueError as error:
            given = dict.fromkeys(definition.names, "")
            return _page(current, given, pasted=pasted, paste_error=str(error)), 422
    else:
        record = _from_form(definition, request.form)
    checked = current.checks.loan(record)
    given = {name: _input_text(record.get(name)) for name in definition.names}
    if checked.problems:
        return _page(current, given, checked=checked, pasted=pasted), 422
    answer = answer_one(current, checked, Wanted())
    return _page(current, given, answer=answer, pasted=pasted), 200


def read_pasted(text: str) -> dict[str, Any]:
    """One loan from pasted JSON, or from a Python dictionary, whose values may be lists of one.

    Raises ValueError with a sentence for the person who pasted it.
    """
    if not text.strip():
        raise ValueError("Nothing was pasted. Paste one loan, for example its JSON.")
    if len(text) > _MAX_PASTED:
        raise ValueError(f"Expected one loan, given {len(text):,} characters.")
    try:
        loan = api.decode(text.encode())
    except (RequestError, UnicodeEncodeError):
        try:
            # Literals only: numbers, texts, lists and dictionaries; nothing is executed.
            loan = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            raise ValueError(
                "This is neither JSON nor a Python dictionary. Expected something like "
                '{"name": value, …}.'
            ) from None
    if isinstance(loan, list) and len(loan) == 1:
        loan = loan[0]
    if not isinstance(loan, dict) or not all(isinstance(name, str) for name in loan):
        raise ValueError(
            f"Expected one loan, names and values in braces, given {show_given(loan)}."
        )
    for name, value in loan.items():
        if isinstance(value, list) and len(value) != 1:
            raise ValueError(
                f"Expected one loan, given {len(value)} values of {show_given(name)}. "
                "Several loans go to the API, or as a book to `peerloan score`."
            )
    return {name: value[0] if isinstance(value, list) else value for name, value in loan.items()}


def _from_form(definition: Definition, form: Mapping[str, str]) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for field in definition.fields:
        text = form.get(PREFIX + field.name, "")
        value: float | str | None = text or None
        if field.is_number:
            try:
                value = parse_number(text)
            except ValueError:
                value = text  # the check refuses it and says what was given
        if value is not None:
            record[field.name] = value
    return record


@blueprint.app_template_filter("input_text")
def _input_text(value: Any) -> str:
    """A value as it stands in an input."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    try:
        return str(value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return ""


def _page(
    current: Serving,
    given: Mapping[str, str],
    *,
    checked: Checked | None = None,
    answer: dict[str, Any] | None = None,
    pasted: str = "",
    paste_error: str = "",
) -> str:
    definition = current.bundle.definition
    problems = checked.problems if checked else []
    by_field = {problem.field: problem for problem in problems}
    return render_template(
        "loan.html",
        bundle=current.bundle,
        fields=definition.fields,
        prefix=PREFIX,
        given=given,
        errors=by_field,
        # Of a pasted loan: names that are no fields have no input to stand beside.
        other_errors=[p for p in problems if p.field not in definition.names],
        answer=answer,
        labels={field.name: field.label for field in definition.fields},
        pasted=pasted,
        paste_error=paste_error,
    )
