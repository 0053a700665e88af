"""Exploration of a book with outcomes, before training.

`measure` reads a book into plain figures, `find` describes the notable ones in sentences, and
`show_page` puts both on a page; `explore` does all three.
"""

from __future__ import annotations

from peerloan.book import Book
from peerloan.loan import Definition
from peerloan.training.exploration.findings import Finding, find
from peerloan.training.exploration.measure import BookStudy, Progress, measure
from peerloan.training.exploration.report import show_page

__all__ = ["BookStudy", "Finding", "explore", "find", "measure", "show_page"]


def explore(
    book: Book,
    definition: Definition,
    progress: Progress = lambda _what, _done: None,
    source: str = "",
) -> str:
    """Report on a book with its labels, as one self-contained HTML file.

    `source` describes where the definition comes from. Invalid rows are left out and counted.
    Raises BookError if a needed column is missing, including the label's, or if no row is valid.
    """
    study = measure(book, definition, progress, source)
    return show_page(study, find(study), progress)
