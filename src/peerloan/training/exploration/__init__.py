"""Exploration: what a book with outcomes holds, before anybody trains on it.

`measure` reads a book into plain figures, `find` says in sentences what is notable about them, and
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
    """A report on a book with its labels, as one HTML file that stands alone.

    `source` says in words where the definition comes from. Rows that are not as the definition says
    are left out and counted. Raises BookError if a needed column is not there, the label's
    included, or if no row is good.
    """
    study = measure(book, definition, progress, source)
    return show_page(study, find(study), progress)
