"""The decision page: a person enters a loan in a form, or pastes one, and gets the decision."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import msgspec
from flask import Blueprint, Response, make_response, render_template, request, url_for

from peerloan.formatting import (
    as_whole,
    format_plain,
    format_probability,
    probability_in_words,
    show_value,
)
from peerloan.loan import Checked, Definition, LenientLoan, LoanWarning, check_leniently
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.desk.pasted import MAX_PASTED_CHARACTERS, PasteError, read_pasted
from peerloan.web.http.problems import RequestError
from peerloan.web.http.request_body import read_form
from peerloan.web.prediction.commit import Submission
from peerloan.web.prediction.input_json import record_input
from peerloan.web.prediction.predict import ResponseOptions, answer_one
from peerloan.web.prediction.serving_models import LoadedModel
from peerloan.web.services import require_champion, services

blueprint = Blueprint("pages", __name__)
# The names of inputs of loan fields have this prefix: a field may have the name of another input.
PREFIX = "field."
# The button below a question about a value has this prefix: its value replaces the input's.
SUGGESTED = "suggested."
# Most characters of an invalid value that the form shows again.
_MAX_SHOWN_CHARACTERS = 1_000
blueprint.add_app_template_filter(format_plain, "plain")
blueprint.add_app_template_filter(format_probability, "probability")
blueprint.add_app_template_filter(probability_in_words, "in_words")


@blueprint.get("/")
@require_scopes("predict")
def empty_form() -> str:
    """Render the form with the default values of the loan definition."""
    models = services().serving_models
    current = models.current
    if current is None:
        return render_template("waiting.html", refusal=models.refusal)
    return _page(current, _defaults(current.bundle.definition))


@blueprint.post("/")
@require_scopes("predict")
def decide() -> Response | tuple[str, int]:
    """Decide on the loan in the form, or on the pasted one, and render the decision."""
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
            record = read_pasted(pasted, definition)
        except PasteError as error:
            values = _defaults(definition)
            return _page(current, values, pasted=pasted, paste_error=str(error)), 422
    else:
        record = _from_form(definition, form)
    checked, loan = check_leniently(current.checks, record)
    values = {name: _input_text(loan.record.get(name)) for name in definition.names}
    if checked.problems:
        values |= {
            problem.field: loan.values[problem.field]
            for problem in checked.problems
            if problem.field in loan.values
        }
        return _page(current, values, checked=checked, loan=loan, pasted=pasted), 422
    try:
        inputs = record_input(loan.record)
    except RequestError as error:  # a pasted loan is too large to store
        return _page(current, values, pasted=pasted, paste_error=f"{error.detail}."), error.status
    options = ResponseOptions()
    answer = answer_one(current, checked, options)
    content = inputs.encode()
    labels = {field.name: field.label for field in definition.fields}
    labelled = {str(warning): _with_label(warning, labels) for warning in answer.warnings[0]}

    def render(body: dict[str, Any]) -> Response:
        # A repeated request gets its first answer, whose warnings may be those of another version.
        warnings = [labelled.get(text, text) for text in body["warnings"]]
        return make_response(
            _page(current, values, loan=loan, answer=body, warnings=warnings, pasted=pasted)
        )

    shared = services()
    submission = Submission("page", [inputs], content, options)
    on_committed = shared.shadow.commit_callback(answer, [inputs])
    return shared.committer.respond(answer, submission, render, on_committed)


def _from_form(definition: Definition, form: Mapping[str, str]) -> dict[str, Any]:
    """Return the texts in a form, by field; empty inputs are left out."""
    texts = {
        name: form.get(SUGGESTED + name) or form.get(PREFIX + name, "") for name in definition.names
    }
    return {name: text for name, text in texts.items() if text.strip()}


def _defaults(definition: Definition) -> dict[str, str]:
    return {field.name: _input_text(field.default) for field in definition.fields}


@blueprint.app_template_filter("input_text")
def _input_text(value: Any) -> str:
    """Format a value as the text of an input of the form."""
    if value is None:
        return ""
    try:
        text = str(as_whole(value) if isinstance(value, float) else value)
    except (ValueError, RecursionError):  # thousands of digits, or of nested brackets
        return ""
    # An unpaired surrogate can't be encoded.
    return text[:_MAX_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()


def _page(
    current: LoadedModel,
    values: Mapping[str, str],
    *,
    checked: Checked | None = None,
    loan: LenientLoan | None = None,
    answer: dict[str, Any] | None = None,
    warnings: Sequence[str] = (),
    pasted: str = "",
    paste_error: str = "",
) -> str:
    """Render the page.

    `values` are the texts of the inputs, `checked` a loan with problems, `loan` how it was read.
    """
    definition = current.bundle.definition
    problems = checked.problems if checked else []
    by_field = {problem.field: problem for problem in problems}
    labels = {field.name: field.label for field in definition.fields}
    return render_template(
        "loan.html",
        bundle=current.bundle,
        fields=definition.fields,
        prefix=PREFIX,
        suggested=SUGGESTED,
        values=values,
        errors=by_field,
        readings=_readings(loan, by_field) if loan else {},
        # A pasted loan may have unknown names. The form has no inputs for them.
        other_errors=[each for each in problems if each.field not in definition.names],
        answer=answer,
        warnings=warnings,
        labels=labels,
        ids={name: f"field-{i}" for i, name in enumerate(definition.names, 1)},
        pasted=pasted[:MAX_PASTED_CHARACTERS],
        paste_error=paste_error,
    )


def _readings(loan: LenientLoan, errors: Container[str]) -> dict[str, str]:
    """Say in a sentence how each value was read, by field.

    A number that is spelled as the form shows it is left out, and so is a value with an error.
    """
    return {
        name: f"{show_value(given)} was read as {_input_text(loan.record[name]) or 'not given'}."
        for name, given in loan.values.items()
        if name not in errors and given.strip() != _input_text(loan.record[name])
    }


def _with_label(warning: LoanWarning, labels: Mapping[str, str]) -> str:
    """Return the text of a warning, with the label of its field instead of the name."""
    label = labels.get(warning.field or "", warning.field)
    return str(msgspec.structs.replace(warning, field=label))
