"""Check the parts of a book against a loan definition, column by column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from peerloan.book.cells import (
    Mask,
    as_text,
    decoded,
    encode,
    encode_texts,
    read_numbers,
    read_texts,
    show_cells,
)
from peerloan.book.header import check_header, check_separator, show_column
from peerloan.book.parts import BookError, Part
from peerloan.book.reader import Book
from peerloan.formatting import agree, are, plural
from peerloan.loan import (
    MAX_RUN_COMPARISONS,
    Definition,
    Field,
    Label,
    Loans,
    Problem,
    Suggestions,
    TextColumn,
)
from peerloan.loan.columns import Column
from peerloan.loan.labels import expected_label, is_unknown, read_label
from peerloan.loan.text import TEXT_EXPECTED, stands_for_missing
from peerloan.stats.arrays import Codes, Numbers


@dataclass(frozen=True)
class ColumnFault:
    """The wrong values of one column of a part; `places` are the positions of their records."""

    field: str
    expected: str
    places: Codes
    column: pa.Array

    def given(self, limit: int | None = None) -> list[str]:
        """The wrong values as text, or the first `limit` of them."""
        return show_cells(self.column, self.places[:limit])


@dataclass(frozen=True)
class CheckedPart:
    """A checked part of a book.

    `good` is a mask of `part.records`: true for records without a wrong value. `loans`, `labels`
    and `ids` are those of the good rows, in the book's order. `every_loan`, `every_label` and
    `every_id` are those of all records: an unreadable value is missing there, a number out of range
    is unchanged. `every_label` is 1 for late, 0 for on time, −1 for missing, −2 for wrong.
    `missing` counts the records without a value by field.
    """

    part: Part
    every_loan: Loans
    every_label: Codes | None
    every_id: TextColumn | None
    missing: Mapping[str, int]
    faults: tuple[ColumnFault, ...]

    @cached_property
    def good(self) -> Mask:
        """True for the records without a problem."""
        good = np.ones(self.part.records.num_rows, dtype=np.bool_)
        for fault in self.faults:
            good[fault.places] = False
        return good

    @cached_property
    def loans(self) -> Loans:
        """The good rows' loans."""
        return self.every_loan if self.good.all() else self.every_loan.take(self.good)

    @cached_property
    def labels(self) -> Codes | None:
        """The good rows' labels: 1 late, 0 on time, −1 missing (if allowed). None if not read."""
        return None if self.every_label is None else self.every_label[self.good]

    @cached_property
    def ids(self) -> list[str | None] | None:
        """The good rows' ids; None if the definition or the book has no such column."""
        if self.every_id is None:
            return None
        return self.every_id.take(self.good).values()

    @cached_property
    def problems(self) -> list[Problem]:
        """Every wrong value of the part, sorted by row, then by field."""
        problems = list(self.part.problems)
        for fault in self.faults:
            rows = self.part.numbers[fault.places].tolist()
            problems += [
                Problem(row, fault.field, fault.expected, given)
                for row, given in zip(rows, fault.given(), strict=True)
            ]
        problems.sort(key=lambda problem: problem.loan or 0)
        return problems


def check_columns(definition: Definition, book: Book, *, label: bool = False) -> list[str]:
    """Check that a book has the definition's columns; returns notes.

    The notes are the book's own, and those on extra columns and on absent columns of optional
    fields. With `label` the label's column is required too. Raises BookError if a required column
    is absent.
    """
    present = set(book.columns)
    needed = [*definition.names, *([definition.label.column] if label else [])]
    missing = [name for name in needed if name not in present]
    if missing:
        check_separator(book.name, book.files[0], needed)
    if len(missing) == len(needed):
        check_header(book.name, book.columns)
    defined = {*needed, definition.label.column, *definition.roles.columns()}
    extra = [name for name in book.columns if name not in defined]

    hints = {}
    unclaimed = list(extra)
    suggestions = Suggestions(MAX_RUN_COMPARISONS)
    for name in missing:
        near = suggestions.nearest(name, tuple(unclaimed))
        hints[name] = "" if near is None else f" (did you mean {show_column(near)}?)"
        if near is not None:
            unclaimed.remove(near)

    optional = {field.name for field in definition.fields if field.missing}
    refused = [f"{show_column(name)}{hints[name]}" for name in missing if name not in optional]
    if refused:
        noun = agree(len(refused), "column", "columns")
        raise BookError(
            f"{book.name}: expected the {noun} {', '.join(refused)}, which {are(len(refused))} "
            "not there"
        )
    notes = list(book.notes)
    notes += [
        f"there is no column {show_column(name)}: it counts as missing in every row{hints[name]}"
        for name in missing
    ]
    if extra:
        names = ", ".join(map(show_column, extra))
        columns = plural(len(extra), "column")
        notes.append(f"{columns} that the loan definition does not name: {names}")
    return notes


def read_loans(
    definition: Definition, part: Part, *, label: bool = False, open_label: bool = False
) -> CheckedPart:
    """Check the rows of a part.

    With `label` the label's column is read too; a wrong or missing label is a problem. With
    `open_label` a missing label is not a problem: the outcome is not known yet. An absent column
    counts as missing in every row.
    """
    columns: dict[str, Column] = {}
    missing: dict[str, int] = {}
    faults: list[ColumnFault] = []

    def note(name: str, expected: str, wrong: Mask, column: pa.Array) -> None:
        if wrong.any():
            faults.append(ColumnFault(name, expected, np.flatnonzero(wrong), column))

    for field in definition.fields:
        column = _column(part.records, field.name)
        values: Column
        if field.is_number:
            values, wrong = read_numbers(column)
            absent = np.isnan(values) & ~wrong
            wrong |= _out_of_range(field, values)
        else:
            values, wrong = read_texts(column, field)
            absent = (values.codes < 0) & ~wrong
        if not field.missing:
            wrong |= absent
        columns[field.name] = values
        missing[field.name] = int(np.count_nonzero(absent))
        if field.kind == "ordered" and wrong.any():
            spelled_missing = _missing_spellings(column, wrong)
            note(field.name, _expected_level(field), spelled_missing, column)
            wrong &= ~spelled_missing
        note(field.name, field.expected, wrong, column)

    labels = None
    if label:
        labels, column = read_labels(definition.label, part)
        wrong = labels == -2 if open_label else labels < 0
        note(definition.label.column, expected_label(definition.label), wrong, column)

    ids = None
    id_name = definition.roles.id
    if id_name is not None and id_name in part.records.schema.names:
        column = _column(part.records, id_name)
        ids, wrong = read_texts(column)
        note(id_name, TEXT_EXPECTED, wrong, column)

    loans = Loans(definition, columns, part.records.num_rows)
    return CheckedPart(part, loans, labels, ids, missing, tuple(faults))


def read_labels(label: Label, part: Part) -> tuple[Codes, pa.Array]:
    """Read the labels (n,) of all records: 1 late, 0 on time, −1 missing, −2 wrong.

    Also returns the label's column.
    """
    column = _column(part.records, label.column)
    codes, texts = encode_texts(column)
    table = np.full(len(texts) + 1, -2, dtype=np.int64)
    table[-1] = -1
    for code, text in enumerate(texts):
        late = None if text is None else read_label(text, label)
        if late is not None:
            table[code] = int(late)
        elif is_unknown(text, label):
            table[code] = -1
    return table[codes], column


def read_column(part: Part, name: str) -> list[str | None]:
    """Read any column of a part as text, None where missing. It need not be a field."""
    texts, _ = read_texts(_column(part.records, name))
    return texts.values()


def read_cells(part: Part, name: str) -> list[object]:
    """Read any column of a part as values for JSON, None where missing.

    A date is text (2026-11-25). A timestamp becomes its date, in its own zone if it has one. Bytes
    that are not UTF-8 stay bytes.
    """
    column = decoded(_column(part.records, name))
    if pa.types.is_timestamp(column.type):
        # Unsafe cast: it drops the time of day. Times before 1970 get the right day too.
        column = column.cast(pa.date32(), safe=False)
    codes, values = encode(column)
    cells = [*map(_cell, values), None]
    return [cells[code] for code in codes.tolist()]


def join_loans(loans: Sequence[Loans]) -> Loans:
    """Concatenate the loans of several batches (at least one, all of one definition)."""
    definition = loans[0].definition
    columns: dict[str, Column] = {}
    for field in definition.fields:
        if field.is_number:
            columns[field.name] = np.concatenate([batch.numbers(field.name) for batch in loans])
            continue
        texts = [batch.texts(field.name) for batch in loans]
        levels = tuple(dict.fromkeys(level for text in texts for level in text.levels))
        codes = np.concatenate([text.recode(levels, unseen=-1) for text in texts])
        columns[field.name] = TextColumn(codes, levels)
    return Loans(definition, columns, sum(batch.size for batch in loans))


def _cell(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return None if value != value else value
    text = as_text(value)
    if text is None:
        return value if isinstance(value, bytes) else str(value)
    return text or None


def _column(records: pa.RecordBatch, name: str) -> pa.Array:
    if name not in records.schema.names:
        return pa.nulls(records.num_rows)
    return records.column(name)


def _out_of_range(field: Field, numbers: Numbers) -> Mask:
    """A mask of the numbers that the field does not accept; false for NaN."""
    outside = np.zeros(len(numbers), dtype=np.bool_)
    if field.min is not None:
        outside |= numbers < field.min
    if field.above is not None:
        outside |= numbers <= field.above
    if field.max is not None:
        outside |= numbers > field.max
    if field.kind == "whole":
        outside |= (numbers != np.trunc(numbers)) & ~np.isnan(numbers)
    return outside


def _missing_spellings(column: pa.Array, wrong: Mask) -> Mask:
    """A mask of the wrong texts that mean a missing value in other programs (NA, NULL, …)."""
    codes, texts = encode_texts(column)
    table = np.array([*(stands_for_missing(text or "") for text in texts), False], dtype=np.bool_)
    return np.asarray(wrong & table[codes])


def _expected_level(field: Field) -> str:
    """What an ordered field expects, with advice for NA and the like."""
    if field.missing:
        return f"{field.expected}; NA and the like are not levels: leave the cell empty"
    return (
        f"{field.expected}; NA and the like are not levels: if the value may be missing, set "
        "missing = true in the definition and leave the cell empty"
    )
