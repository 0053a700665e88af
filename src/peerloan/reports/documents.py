"""A version's documents, under its name: the report as data and as a page, and the card."""

from __future__ import annotations

from collections.abc import Mapping

from peerloan.loan import Definition
from peerloan.model.policy import figures_at
from peerloan.registry import Manifest, Store
from peerloan.registry.packaging import DocumentWriter
from peerloan.reports.data import REPORT_FILE, PolicyReport, Report, decode_report, encode_report
from peerloan.reports.model_card import model_card
from peerloan.reports.pages import report_page

PAGE_FILE, CARD_FILE = "report.html", "card.md"
# The page of a version without report data, beside that of its new policy.
_BASE_PAGE_FILE = "base_report.html"


def new_version_documents(definition: Definition, report: Report) -> DocumentWriter:
    """Give what renders the documents of a version with a report of its own."""

    def write(manifest: Manifest) -> Mapping[str, str]:
        data = encode_report(report, manifest)
        return {
            REPORT_FILE: data,
            # From the data as they stand in the bundle, and from nothing else.
            PAGE_FILE: report_page(decode_report(data), manifest),
            CARD_FILE: model_card(manifest, definition),
        }

    return write


def new_policy_documents(store: Store, version: str) -> DocumentWriter:
    """Give what renders the documents of this version under another policy; raises BundleError.

    The report's data stay as they are; the page says that the policy was changed.
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
    """The version is of a release before `report.json`: its page is kept as another file."""

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
