"""The pages of stored decisions: a filtered list, one decision, and the search box."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response, redirect, render_template, request, url_for

from peerloan.formatting import format_exact, signed
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.loan import Field
from peerloan.model import BANDS
from peerloan.registry import Bundle, RegistryError, Store
from peerloan.web.auth.authentication import only_caller
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.prediction.stored_decisions import (
    parse_decision_id,
    read_decision,
    read_page,
)
from peerloan.web.services import services

blueprint = Blueprint("desk_decisions", __name__)
blueprint.add_app_template_filter(signed, "signed")
log = logging.getLogger(__name__)
_FILTER = ("loan_id", "since", "until", "version", "band", "cursor")
# Versions that are kept loaded to explain decisions: as many as a person compares.
_LOADED = 4


class Bar(NamedTuple):
    """A value's part in a decision: a bar from the middle (50) of 0 to 100."""

    label: str
    contribution: float
    x: float
    width: float
    look: str


@blueprint.get("/decisions")
@require_scopes("read", "predict")
def decisions() -> Any:
    """Render a page of decisions, newest first. The address contains the filter."""
    if "" in request.args.values():  # the form sends empty inputs too
        given: dict[str, Any] = {name: value for name, value in request.args.items() if value}
        return redirect(url_for("desk_decisions.decisions", **given))
    page = read_page(services().database, only_caller(request.environ))
    chosen: dict[str, Any] = {name: text for name, text in request.args.items() if name != "cursor"}
    return render_template(
        "decisions/list.html",
        page=page,
        bands=BANDS,
        filter={name: request.args.get(name, "") for name in _FILTER},
        is_filtered=bool(chosen.keys() - {"limit"}),
        first=url_for("desk_decisions.decisions", **chosen),
        following=url_for("desk_decisions.decisions", **chosen, cursor=page.next),
    )


@blueprint.get("/decisions/<decision>")
@require_scopes("read", "predict")
def decision(decision: str) -> str:
    """Render one decision as it was answered, with its origin and its outcomes."""
    stored = read_decision(services().database, decision, only_caller(request.environ))
    given: dict[str, Any] = msgspec.json.decode(stored["inputs"])
    bundle = _bundle_of(services().store, **stored["model"])
    fields = {} if bundle is None else {field.name: field for field in bundle.definition.fields}
    return render_template(
        "decisions/one.html",
        decision=stored,
        inputs=[_shown(fields.get(name), name, value) for name, value in given.items()],
        balance=[] if bundle is None else _balance(bundle, stored),
        base=None if bundle is None else bundle.base,
    )


@blueprint.get("/find")
@require_scopes("read", "predict")
def search() -> Response:
    """Redirect to what a text names: a decision's id, a version, or else a loan's id."""
    text = request.args.get("q", "").strip()
    if parse_decision_id(text) is not None:
        address = url_for("desk_decisions.decision", decision=text)
    elif text in services().store.versions():
        address = url_for("desk_models.model", version=text)
    else:
        address = url_for("desk_decisions.decisions", loan_id=text)
    return redirect(address)  # type: ignore[return-value]


def _bundle_of(store: Store, version: str, digest: str) -> Bundle | None:
    """Load the version that decided; None if the store has it no more, or has another one."""
    try:
        return _load(store, version, digest)
    except RegistryError as error:
        log.info("a decision is shown without its version: %s", error)
        return None


@lru_cache(maxsize=_LOADED)
def _load(store: Store, version: str, digest: str) -> Bundle | None:
    bundle = store.load(version)
    return bundle if bundle.digest == digest else None


def _balance(bundle: Bundle, stored: dict[str, Any]) -> list[Bar]:
    """Compute the contributions again, the largest first; empty if they can't be those of then."""
    try:
        values = InputReader(bundle.definition).read(bytes(stored["inputs"]).decode()).values
    except InputUnreadable:
        return []
    decided = bundle.decide(values)
    if decided.margin != stored["margin"] or not decided.contributions:
        return []
    parts = zip(bundle.definition.fields, values, decided.contributions, strict=True)
    ranked = sorted(parts, key=lambda part: -abs(part[2]))
    most = abs(ranked[0][2]) or 1.0
    bars = []
    for field, value, contribution in ranked:
        width = 50 * abs(contribution) / most
        label = f"{field.label}: {_shown(field, field.name, value)[1]}"
        look, x = ("more", 50.0) if contribution > 0 else ("less", 50 - width)
        bars.append(Bar(label, contribution, x, width, look))
    return bars


def _shown(field: Field | None, name: str, value: object) -> tuple[str, str]:
    """Return a value's label and its text with the unit."""
    label = name if field is None else field.label
    if value is None:
        return label, "–"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return label, str(value)
    if field is None or not field.is_number:
        return label, format_exact(float(value))
    return label, field.show(float(value))
