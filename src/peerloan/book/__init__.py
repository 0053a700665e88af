"""Books: tables of loans. Read, check and write them, and draft a loan definition from one."""

from peerloan.book.drafting.definition_draft import draft_definition
from peerloan.book.equal_rows import EqualRows, Repeated
from peerloan.book.fingerprint import Fingerprint
from peerloan.book.parts import BookError, Part, Progress
from peerloan.book.quality.check_report import Group, Report, check_book
from peerloan.book.quality.doubts import BookDoubts, Doubt, DoubtCollector
from peerloan.book.reader import Book, open_book
from peerloan.book.rewriting import refuse_unwritable, take_rows
from peerloan.book.spreadsheets import harmless_text
from peerloan.book.validation import (
    Batch,
    Fault,
    check_columns,
    join_loans,
    read_cells,
    read_column,
    read_labels,
    read_loans,
)
from peerloan.book.writer import Writer, open_writer

__all__ = [
    "Batch",
    "Book",
    "BookDoubts",
    "BookError",
    "Doubt",
    "DoubtCollector",
    "EqualRows",
    "Fault",
    "Fingerprint",
    "Group",
    "Part",
    "Progress",
    "Repeated",
    "Report",
    "Writer",
    "check_book",
    "check_columns",
    "draft_definition",
    "harmless_text",
    "join_loans",
    "open_book",
    "open_writer",
    "read_cells",
    "read_column",
    "read_labels",
    "read_loans",
    "refuse_unwritable",
    "take_rows",
]
