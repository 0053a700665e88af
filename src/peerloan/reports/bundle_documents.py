"""Makes a version's documents: the report as data and as a page, and the model card."""

from __future__ import annotations

from collections.abc import Mapping

from peerloan.loan import Definition
from peerloan.model.policy import figures_at
from peerloan.registry import Manifest, Store
from peerloan.registry.packaging import DocumentWriter
from peerloan.reports.model_card import model_card
from peerloan.reports.pages import report_page
from peerloan.reports.report_json import (
    REPORT_FILE,
    PolicyReport,
    Report,
    decode_report,
    encode_report,
)

PAGE_FILE, CARD_FILE = "report.html", "card.md"
# The page of a base version that has no report data; the page of the new policy links to it.
_BASE_PAGE_FILE = "base_report.html"


def new_version_documents(definition: Definition, report: Report) -> DocumentWriter:
    """Return the writer of documents for a new version with this report."""

    def write(manifest: Manifest) -> Mapping[str, str]:
        data = encode_report(report, manifest)
        return {
            REPORT_FILE: data,
            # Rendered from the stored data, so that page and data agree.
            PAGE_FILE: report_page(decode_report(data), manifest),
            CARD_FILE: model_card(manifest, definition),
        }

    return write


def new_policy_documents(store: Store, version: str) -> DocumentWriter:
    """Return the writer of documents for a version with another policy. Raises BundleError.

    The report's data stay the same; a notice on the page states that the policy was changed.
    """
    definition = store.definition(version)
    data = store.document(version, REPORT_FILE)
    if data is None:
        return _without_data(definition, version, store.document(version, PAGE_FILE))
    report = decode_report(data)

    def write(manifest: Manifest) -> Mapping[str, str]:
        return {
            PAGE_FILE: report_page(report, manifest),
            CARD_FILE: model_card(manifest, definition),
        }

    return write


def _without_data(definition: Definition, base: str, base_page: str | None) -> DocumentWriter:
    """Return the writer for a base version of a release before `report.json`.

    Its page is copied to another file, because it can't be rendered again.
    """

    def write(manifest: Manifest) -> Mapping[str, str]:
        report = PolicyReport(
            model=manifest.model,
            candidate=manifest.candidate,
            policy=manifest.policy,
            base=base,
            is_sample=manifest.sample,
            figures=figures_at(manifest.policy, manifest.trade_off),
            base_page=None if base_page is None else _BASE_PAGE_FILE,
        )
        documents = new_version_documents(definition, report)(manifest)
        return {**documents, **({} if base_page is None else {_BASE_PAGE_FILE: base_page})}

    return write
