"""Books: tables of loans. Read, check and write them, and draft a loan definition from one."""

from peerloan.book.drafting.definition_draft import draft_definition
from peerloan.book.duplicate_rows import DuplicateCount, DuplicateRows
from peerloan.book.fingerprint import Fingerprint
from peerloan.book.lossless_output import check_writable, filter_column
from peerloan.book.parts import BookError, Part, Progress
from peerloan.book.quality.check_report import BookReport, ProblemGroup, check_book
from peerloan.book.quality.doubts import BookDoubts, Doubt, DoubtCollector
from peerloan.book.reader import Book, open_book
from peerloan.book.spreadsheets import escape_formula
from peerloan.book.validation import (
    CheckedPart,
    ColumnFault,
    check_columns,
    join_loans,
    read_cells,
    read_column,
    read_labels,
    read_loans,
)
from peerloan.book.writer import BookWriter, open_writer

__all__ = [
    "Book",
    "BookDoubts",
    "BookError",
    "BookReport",
    "BookWriter",
    "CheckedPart",
    "ColumnFault",
    "Doubt",
    "DoubtCollector",
    "DuplicateCount",
    "DuplicateRows",
    "Fingerprint",
    "Part",
    "ProblemGroup",
    "Progress",
    "check_book",
    "check_columns",
    "check_writable",
    "draft_definition",
    "escape_formula",
    "filter_column",
    "join_loans",
    "open_book",
    "open_writer",
    "read_cells",
    "read_column",
    "read_labels",
    "read_loans",
]
