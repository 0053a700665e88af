"""The pages of model versions: all of them with the history of the aliases, and one version."""

from __future__ import annotations

from typing import NamedTuple

from flask import Blueprint, Response, make_response, render_template

from peerloan.formatting import percent, plural, show_number, show_value
from peerloan.loan import Field
from peerloan.registry import BundleError, Manifest
from peerloan.web.auth.endpoint_scopes import require_scopes
from peerloan.web.http.problems import RequestError
from peerloan.web.services import reading_version, services

blueprint = Blueprint("desk_models", __name__)
blueprint.add_app_template_filter(percent, "percent")
# What a version's table of figures shows, in this order.
_FIGURES = (
    ("auc", "AUC"),
    ("brier", "Brier score"),
    ("log_loss", "log loss"),
    ("recall", "recall"),
    ("flagged", "flagged"),
    ("precision", "precision"),
)


class Row(NamedTuple):
    """A version in the list; `refused` is why its manifest can't be read."""

    version: str
    manifest: Manifest | None = None
    refused: str = ""


class Figure(NamedTuple):
    """A figure of a version out of fold, with its 95 % interval, and on later loans."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    later: float | None


@blueprint.get("/models")
@require_scopes("read")
def models() -> str:
    """Render the list of versions, the newest first, and the changes of the aliases."""
    store = services().store
    rows = []
    for version in reversed(store.versions()):
        try:
            rows.append(Row(version, store.manifest(version)))
        except BundleError as error:
            rows.append(Row(version, refused=str(error)))
    return render_template(
        "models/list.html",
        rows=rows,
        state=store.state(),
        history=list(reversed(store.history())),
        reasons=store.explanations().by_number,
    )


@blueprint.get("/models/<version>")
@require_scopes("read")
def model(version: str) -> str:
    """Render one version: figures, policy, training table and files."""
    store = services().store
    with reading_version(version):
        manifest, digest = store.read(version)
        definition = store.definition(version)
    figures = [
        Figure(
            shown,
            manifest.metrics.get(name),
            manifest.intervals.get(name),
            manifest.metrics.get(f"later_{name}"),
        )
        for name, shown in _FIGURES
        if name in manifest.metrics
    ]
    return render_template(
        "models/version.html",
        manifest=manifest,
        digest=digest,
        definition=definition,
        state=store.state(),
        figures=figures,
        has_report="report.html" in manifest.files,
        has_card="card.md" in manifest.files,
    )


@blueprint.get("/models/<version>/<document>")
@require_scopes("read")
def document(version: str, document: str) -> Response:
    """Send a version's training report or model card as a download."""
    kinds = {"report.html": "text/html", "card.md": "text/markdown"}
    with reading_version(version):
        content = services().store.document(version, document) if document in kinds else None
    if content is None:
        detail = f"{version} has no document {show_value(document)}"
        raise RequestError(404, "No Such Document", detail)
    response = make_response(content)
    response.mimetype = kinds[document]
    response.headers["Content-Disposition"] = f'attachment; filename="{version}-{document}"'
    return response


@blueprint.app_template_filter("seen")
def _seen_in_training(field: Field) -> str:
    """Describe the values of a field that training saw."""
    if field.seen_range is None:
        return plural(len(field.seen_levels), "level")
    low, high = (show_number(end, field.percent) for end in field.seen_range)
    return f"{low} to {high} {field.unit}".strip()
