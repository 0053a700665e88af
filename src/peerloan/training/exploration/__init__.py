"""Exploration of a book with outcomes, before training."""

from __future__ import annotations

from dataclasses import dataclass

from peerloan.book import Book
from peerloan.loan import Definition
from peerloan.training.exploration.findings import Finding, list_findings
from peerloan.training.exploration.measure import BookStudy, Progress, measure
from peerloan.training.exploration.report import render_page

__all__ = ["BookStudy", "Exploration", "Finding", "explore", "list_findings", "measure"]


@dataclass(frozen=True)
class Exploration:
    """A book's measurements, the findings in sentences, and both as one HTML page."""

    study: BookStudy
    findings: list[Finding]
    page: str


def explore(
    book: Book,
    definition: Definition,
    progress: Progress = lambda _step, _done: None,
    source: str = "",
) -> Exploration:
    """Explore a book with outcomes.

    `source` describes where the definition comes from. Invalid rows are counted, and left out of
    all other figures. Raises BookError if a needed column is missing, including the label's, or if
    no row is valid.
    """
    study = measure(book, definition, progress, source)
    findings = list_findings(study)
    return Exploration(study, findings, render_page(study, findings, progress))
