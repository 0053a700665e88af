"""The page where a person enters a loan and reads the decision."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, make_response, render_template, request, url_for

from peerloan.formatting import show_value
from peerloan.loan import Checked, Definition, LoanWarning
from peerloan.loan.text import parse_number
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http.problems import RequestError
from peerloan.web.http.request_body import decode, read_form
from peerloan.web.prediction.commit import Submission
from peerloan.web.prediction.input_json import record_input
from peerloan.web.prediction.predict import ResponseOptions, answer_one
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.services import require_champion, services

blueprint = Blueprint("pages", __name__)
# Names of the form itself. Inputs of fields have a prefix, because a field may have the same name.
PREFIX = "field."
_MAX_PASTED = 100_000
# Most characters of an invalid input to show again.
_MAX_SHOWN = 1_000


@blueprint.get("/")
@require_scopes("predict")
def empty_form() -> str:
    """Render the form with the definition's defaults."""
    models = services().serving_models
    current = models.current
    if current is None:
        return render_template("waiting.html", refusal=models.refusal)
    return _page(current, _defaults(current.bundle.definition))


@blueprint.post("/")
@require_scopes("predict")
def decide() -> Response | tuple[str, int]:
    """Decide on the loan in the form, or on the pasted one."""
    if request.is_json:
        raise RequestError(
            415,
            "Unsupported Media Type",
            f"expected the page's form, given JSON; send it to POST {url_for('api.predictions')}",
        )
    form = read_form()
    current = require_champion()
    definition = current.bundle.definition
    pasted = form.get("pasted", "")
    if form.get("action") == "paste":
        try:
            record = read_pasted(pasted)
        except ValueError as error:
            given = _defaults(definition)
            return _page(current, given, pasted=pasted, paste_error=str(error)), 422
    else:
        record = _from_form(definition, form)
    checked = current.checks.loan(record)
    given = {name: _input_text(record.get(name)) for name in definition.names}
    if checked.problems:
        return _page(current, given, checked=checked, pasted=pasted), 422
    try:
        inputs = record_input(record)
    except RequestError as error:  # a pasted loan may be too large; a form never is
        return _page(current, given, pasted=pasted, paste_error=f"{error.detail}."), error.status
    options = ResponseOptions()
    answer = answer_one(current, checked, options)
    content = inputs.encode()

    labels = {field.name: field.label for field in definition.fields}
    labelled = {str(each): _with_label(each, labels) for each in answer.warnings[0]}

    def render(body: dict[str, Any]) -> Response:
        # The first answer of a repeated request may have warnings of another version.
        warnings = [labelled.get(text, text) for text in body["warnings"]]
        return make_response(_page(current, given, answer=body, warnings=warnings, pasted=pasted))

    held = services()
    submission = Submission("page", [inputs], content, options)
    followed = held.shadow.from_environment(answer, [inputs])
    return held.committer.respond(answer, submission, render, followed)


def read_pasted(text: str) -> dict[str, Any]:
    """Parse one loan from pasted JSON or a Python dictionary; values may be lists of one.

    Raises ValueError with a message for the person.
    """
    if not text.strip():
        raise ValueError("Nothing was pasted. Paste one loan, for example its JSON.")
    if len(text) > _MAX_PASTED:
        raise ValueError(f"Expected one loan, given {len(text):,} characters.")
    try:
        loan = decode(text.encode())
    except (RequestError, UnicodeEncodeError) as error:
        if isinstance(error, RequestError) and error.problems:
            raise ValueError(f"{error.detail}.") from None
        try:
            # Literals only: numbers, texts, lists and dictionaries. Nothing is executed.
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
            f"Expected one loan, names and values in braces, given {show_value(loan)}."
        )
    try:
        json.dumps(loan)
    except (TypeError, ValueError):
        raise ValueError(
            f"Expected values that JSON has too, given {show_value(str(loan))}."
        ) from None
    for name, value in loan.items():
        if value == []:
            raise ValueError(f"Expected one loan, given no value of {show_value(name)}.")
        if isinstance(value, list) and len(value) != 1:
            raise ValueError(
                f"Expected one loan, given {len(value)} values of {show_value(name)}. "
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
                value = _plain(parse_number(text))
            except ValueError:
                value = text  # the check refuses it with a message about the value
        if value is not None:
            record[field.name] = value
    return record


def _defaults(definition: Definition) -> dict[str, str]:
    return {field.name: _input_text(field.default) for field in definition.fields}


def _plain(number: float | None) -> float | None:
    """Format a whole number for display."""
    if number is not None and number.is_integer() and abs(number) < 1e15:
        return int(number)
    return number


@blueprint.app_template_filter("input_text")
def _input_text(value: Any) -> str:
    """Format a value as the text of an input."""
    if value is None:
        return ""
    try:
        text = str(_plain(value) if isinstance(value, float) else value)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return ""
    # An unpaired surrogate can't be encoded.
    return text[:_MAX_SHOWN].encode("utf-8", "replace").decode()


@blueprint.app_template_filter("brief")
def _brief(value: float) -> str:
    """Format a number as a person would: 0.0531, not the double 0.053099999999999994."""
    return _input_text(value if value.is_integer() else float(f"{value:.6g}"))


def _page(
    current: LoadedModel,
    given: Mapping[str, str],
    *,
    checked: Checked | None = None,
    answer: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    pasted: str = "",
    paste_error: str = "",
) -> str:
    definition = current.bundle.definition
    problems = checked.problems if checked else []
    by_field = {problem.field: problem for problem in problems}
    labels = {field.name: field.label for field in definition.fields}
    return render_template(
        "loan.html",
        bundle=current.bundle,
        fields=definition.fields,
        prefix=PREFIX,
        given=given,
        errors=by_field,
        # A pasted loan may have unknown names, which have no input to show the problem at.
        other_errors=[p for p in problems if p.field not in definition.names],
        answer=answer,
        warnings=warnings,
        labels=labels,
        ids={name: f"field-{i}" for i, name in enumerate(definition.names, 1)},
        pasted=pasted[:_MAX_PASTED],
        paste_error=paste_error,
    )


def _with_label(warning: LoanWarning, labels: Mapping[str, str]) -> str:
    """Return a warning with the label of the field."""
    label = labels.get(warning.field or "", warning.field)
    return str(msgspec.structs.replace(warning, field=label))
