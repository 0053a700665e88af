"""Scoring whole books: part by part, the same decisions as the API gives."""

from __future__ import annotations

import csv
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pyarrow as pa

from peerloan import private_files
from peerloan.book import (
    Batch,
    Book,
    BookDoubts,
    BookError,
    DoubtCollector,
    check_columns,
    harmless_text,
    open_writer,
    read_loans,
    refuse_unwritable,
    take_rows,
)
from peerloan.ledger import Recorder
from peerloan.loan import Problem
from peerloan.model import BANDS, MAX_REASONS
from peerloan.registry import Bundle, Decisions
from peerloan.scoring.arrow_text import ids_of, reason_columns
from peerloan.scoring.ledger_records import Recording

REASON_COLUMNS = tuple(f"reason_{i + 1}" for i in range(MAX_REASONS))
ADDED = pa.schema(
    [
        ("probability", pa.float64()),
        ("late", pa.bool_()),
        ("band", pa.string()),
        *((name, pa.string()) for name in REASON_COLUMNS),
        ("model_version", pa.string()),
    ]
)
# Before those, if the decisions are recorded.
ID = pa.field("id", pa.string())
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Scored:
    """What became of a book: rows scored, how many of them late, rows rejected, and doubts."""

    rows: int
    late: int
    rejected: int
    rejects: Path | None
    notes: list[str]
    doubts: BookDoubts


def score_book(
    book: Book,
    bundle: Bundle,
    out: Path,
    *,
    strict: bool = False,
    strict_doubts: bool = False,
    overwrite: bool = False,
    spreadsheet_safe: bool = False,
    reasons: bool = True,
    recorder: Recorder | None = None,
    progress: Progress = lambda _done: None,
) -> Scored:
    """Write the book with its decisions to `out`; bad rows go to `out`.rejects.

    `strict` stops at the first bad row and writes nothing; `strict_doubts` refuses a book that is
    doubted (it is read twice then). `spreadsheet_safe`: as `open_writer` has it. Without `reasons`
    their columns are empty, which saves milliseconds a loan with an ONNX version. With a
    `recorder` the decisions go to the ledger, each before its row is in `out`, which gains their
    ids; what is recorded stays, also if `out` can't be written in the end. Raises BookError, or
    LedgerError.
    """
    notes = check_columns(bundle.definition, book)
    added = pa.schema([*([] if recorder is None else [ID]), *ADDED])
    if taken := [name for name in book.columns if name in added.names]:
        raise BookError(f"{book.name}: has a column {taken[0]!r} already; is it a scored book?")
    typed = _typed_columns(book, bundle) if out.name.lower().endswith(".parquet") else {}
    given = [field.with_type(typed.get(field.name, field.type)) for field in book.schema]
    schema = pa.schema([*given, *added])
    refuse_unwritable(book, out)
    rejects = out.with_name(out.name + ".rejects")
    for target in (out, rejects):
        if target.exists() and any(target.samefile(path) for path in book.paths):
            raise BookError(f"{target}: is the book itself")
    if strict_doubts or (strict and recorder is not None):
        # What is recorded can't be taken back, and what is doubted is known only in the end.
        _look_through(book, bundle, strict, strict_doubts)
    doubts = _doubts(book, bundle)
    recording = None if recorder is None else Recording(recorder, bundle, book)
    steps = _Steps(progress)
    # The ledger keeps reasons that cost nothing, whether or not the file shows them.
    explain = reasons or bundle.is_additive
    rows = late = rejected = 0
    with (
        open_writer(out, schema, overwrite, spreadsheet_safe) as writer,
        # Closed first: a book is never there without its rejects.
        _open_rejects(rejects, overwrite, spreadsheet_safe) as reject,
    ):
        for part in book.parts(steps.read):
            batch = read_loans(bundle.definition, part)
            if strict:
                _refuse_any(book, batch.problems)
            doubts.add(batch)
            reject(batch.problems)
            decisions = bundle.decide_many(batch.loans, explain and steps.each(batch.loans.size))
            ids = None if recording is None else recording.keep(batch, decisions)
            columns = [*_given(batch, typed), *_added(bundle, decisions, ids, reasons)]
            writer.write(pa.RecordBatch.from_arrays(columns, schema.names))
            rows += batch.loans.size
            late += int(decisions.late.sum())
            rejected += part.size - batch.loans.size
        if recorder is not None:
            recorder.finish()
    return Scored(rows, late, rejected, rejects if rejected else None, notes, doubts.found())


class _Steps:
    """Progress through a part that has been read and is now being scored."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._before = self._after = 0.0

    def read(self, done: float) -> None:
        self._before, self._after = self._after, done
        self._progress(self._before)

    def each(self, loans: int) -> Iterator[int]:
        """The positions of a part's loans, with progress while they are taken one by one."""
        for i in range(loans):
            yield i
            if i % 100 == 0:
                self._progress(self._before + (self._after - self._before) * i / loans)


def _doubts(book: Book, bundle: Bundle) -> DoubtCollector:
    return DoubtCollector(book.name, bundle.definition, True, bundle.profile.usual_ranges())


def _look_through(book: Book, bundle: Bundle, strict: bool, strict_doubts: bool) -> None:
    """Read a book for what would refuse it, before anything is written or recorded."""
    doubts = _doubts(book, bundle)
    for part in book.parts():
        batch = read_loans(bundle.definition, part)
        if strict:
            _refuse_any(book, batch.problems)
        doubts.add(batch)
    if strict_doubts:
        doubts.found().refuse()


def _refuse_any(book: Book, problems: Sequence[Problem]) -> None:
    if problems:
        raise BookError(f"{book.bad_row(problems[0])} (--strict: nothing was written)")


def _typed_columns(book: Book, bundle: Bundle) -> dict[str, pa.DataType]:
    """What Parquet is to hold of a CSV book's cells: numbers as numbers, and texts.

    Whole ones are doubles too: 1e300 is a whole number, and no 64-bit integer.
    """
    if not book.is_text:
        return {}
    numbers = {field.name for field in bundle.definition.fields if field.is_number}
    return {
        field.name: pa.float64() if field.name in numbers else pa.string()
        for field in book.schema
        if pa.types.is_binary(field.type)
    }


def _given(batch: Batch, typed: dict[str, pa.DataType]) -> list[pa.Array]:
    """The good rows' columns as they were given; those that are numbers in `typed` as numbers."""
    records = batch.part.records
    return [
        pa.array(batch.loans.numbers(name), from_pandas=True)
        if typed.get(name) == pa.float64()
        else take_rows(records.column(name), batch.good)
        for name in records.schema.names
    ]


def _added(
    bundle: Bundle, decisions: Decisions, ids: Sequence[bytes] | None, reasons: bool
) -> list[pa.Array]:
    """The added columns: ids if there are any, and ADDED; without `reasons` theirs are empty."""
    bands = pa.DictionaryArray.from_arrays(decisions.bands, list(BANDS))
    return [
        *([] if ids is None else [ids_of(ids)]),
        pa.array(decisions.probabilities),
        pa.array(decisions.late),
        bands.dictionary_decode(),
        *_sentences(bundle, decisions, reasons),
        pa.repeat(bundle.version, len(decisions.margins)),
    ]


def _sentences(bundle: Bundle, decisions: Decisions, show: bool) -> Iterator[pa.Array]:
    """The reason columns; empty unless they are to `show`."""
    filled = 0
    if show and decisions.reasons is not None:
        reasons = decisions.reasons
        texts = [bundle.sentence(key.position, key.value) for key in reasons.keys]
        yield from reason_columns(texts, reasons.places)
        filled = reasons.places.shape[1]
    for _ in range(filled, MAX_REASONS):
        yield pa.nulls(len(decisions.margins), pa.string())


@contextmanager
def _open_rejects(
    path: Path, overwrite: bool, safe: bool
) -> Iterator[Callable[[Sequence[Problem]], None]]:
    """A CSV of wrong values; it is there at the end only if there were any."""
    if path.exists() and not overwrite:
        raise BookError(f"{path}: is there already (--overwrite replaces it)")
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    any_written = False

    def write(problems: Sequence[Problem]) -> None:
        nonlocal any_written
        any_written |= bool(problems)
        for each in problems:
            texts = (each.field, each.expected, each.given)
            rows.writerow((each.loan, *(map(harmless_text, texts) if safe else texts)))

    with ExitStack() as stack:
        try:
            file = open(  # noqa: SIM115
                partial, "x", encoding="utf-8", newline="", opener=private_files.opener
            )
            stack.callback(partial.unlink, missing_ok=True)
            # For the error's sake: on a full disk closing would blame this file for another's.
            stack.callback(_close_quietly, file)
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("row", "field", "expected", "given"))
            yield write
            file.flush()
            os.fsync(file.fileno())
            path.unlink(missing_ok=True)
            if any_written:
                partial.replace(path)
        except OSError as error:
            raise BookError(f"{path}: can't be written: {error.strerror}") from error


def _close_quietly(file: IO[str]) -> None:
    with suppress(OSError):
        file.close()
