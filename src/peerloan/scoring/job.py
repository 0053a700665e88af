"""Score a book part by part; the decisions are the same as from the API."""

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
    Book,
    BookDoubts,
    BookError,
    CheckedPart,
    DoubtCollector,
    check_columns,
    check_writable,
    escape_formula,
    filter_column,
    open_writer,
    read_loans,
)
from peerloan.ledger import BatchWriter
from peerloan.loan import Problem
from peerloan.model import BANDS, MAX_REASONS
from peerloan.registry import Bundle, Decisions
from peerloan.scoring.arrow_text import ids_of, reason_columns
from peerloan.scoring.ledger_records import BookRecorder

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
# The first of the added columns, if decisions are recorded.
ID = pa.field("id", pa.string())
Progress = Callable[[float], None]


@dataclass(frozen=True)
class ScoringResult:
    """The result of scoring a book.

    `rows` were scored, and `late` of them are predicted late; `rejected` rows are in the file
    `rejects` (None if there are none).
    """

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
    recorder: BatchWriter | None = None,
    progress: Progress = lambda _done: None,
) -> ScoringResult:
    """Write the book with its decisions to `out`, and bad rows to `out`.rejects.

    - `strict`: stop at the first bad row and write nothing.
    - `strict_doubts`: refuse a book with grave doubts; the book is then read twice.
    - `spreadsheet_safe`: see `open_writer`.
    - `reasons`: if false, the reason columns are empty, which saves milliseconds per loan with an
      ONNX version.
    - `recorder`: record each decision in the ledger before its row is written, and add an id column
      to `out`. Recorded decisions stay, even if `out` can't be written in the end.

    Parts of the book are scored one after the other, in this thread; each part depends only on its
    rows and the bundle. The caller owns and closes `recorder`; nothing else may use it meanwhile.
    Raises BookError, LedgerError, or OnnxTimeLimit.
    """
    notes = check_columns(bundle.definition, book)
    typed = _typed_columns(book, bundle) if out.name.lower().endswith(".parquet") else {}
    schema = _output_schema(book, typed, with_ids=recorder is not None)
    check_writable(book, out)
    rejects = out.with_name(out.name + ".rejects")
    _refuse_own_files(book, out, rejects)
    if strict_doubts or (strict and recorder is not None):
        # Records can't be taken back, and doubts are complete only at the end.
        _check_before_writing(book, bundle, strict, strict_doubts)
    scorer = _PartScorer(book, bundle, typed, reasons, recorder, progress)
    doubts = _doubts(book, bundle)
    rows = late = rejected = 0
    with (
        open_writer(out, schema, overwrite, spreadsheet_safe) as writer,
        # Closed before the writer: `out` never exists without its rejects.
        _open_rejects(rejects, overwrite, spreadsheet_safe) as write_rejects,
    ):
        for part in book.parts(scorer.progress.read):
            batch = read_loans(bundle.definition, part)
            if strict:
                _refuse_problems(book, batch.problems)
            doubts.add(batch)
            write_rejects(batch.problems)
            decisions, columns = scorer.score(batch)
            writer.write(pa.RecordBatch.from_arrays(columns, schema.names))
            rows += batch.loans.size
            late += int(decisions.late.sum())
            rejected += part.size - batch.loans.size
        if recorder is not None:
            recorder.finish()
    return ScoringResult(
        rows, late, rejected, rejects if rejected else None, notes, doubts.result()
    )


class _PartScorer:
    """Decides on the good rows of a part, records the decisions, and makes the output columns."""

    def __init__(
        self,
        book: Book,
        bundle: Bundle,
        typed: dict[str, pa.DataType],
        reasons: bool,
        recorder: BatchWriter | None,
        progress: Progress,
    ) -> None:
        self._bundle, self._typed, self._reasons = bundle, typed, reasons
        self._recording = None if recorder is None else BookRecorder(recorder, bundle, book)
        # Reasons that cost nothing are always stored in the ledger, even if the file omits them.
        self._explain = reasons or bundle.is_additive
        self.progress = _ScoringProgress(progress)

    def score(self, batch: CheckedPart) -> tuple[Decisions, list[pa.Array]]:
        """Return the decisions on a part's good rows and the columns of the output table."""
        positions = self.progress.positions(batch.loans.size)
        decisions = self._bundle.decide_many(batch.loans, self._explain and positions)
        ids = None if self._recording is None else self._recording.record(batch, decisions)
        added = _added_columns(self._bundle, decisions, ids, self._reasons)
        return decisions, [*_book_columns(batch, self._typed), *added]


class _ScoringProgress:
    """Progress of reading and scoring as one fraction, from 0 to 1."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        # The fractions of the book that were read before and after the current part.
        self._before = self._after = 0.0

    def read(self, done: float) -> None:
        """Report that this fraction of the book was read, the current part included."""
        self._before, self._after = self._after, done
        self._progress(self._before)

    def positions(self, loans: int) -> Iterator[int]:
        """Yield the positions of a part's loans; progress is reported as they are consumed."""
        for i in range(loans):
            yield i
            if i % 100 == 0:
                self._progress(self._before + (self._after - self._before) * i / loans)


def _output_schema(book: Book, typed: dict[str, pa.DataType], with_ids: bool) -> pa.Schema:
    """The book's columns and the added ones; raises BookError if two have the same name."""
    added = pa.schema([*([ID] if with_ids else []), *ADDED])
    if taken := [name for name in book.columns if name in added.names]:
        raise BookError(f"{book.name}: has a column {taken[0]!r} already; is it a scored book?")
    book_fields = [field.with_type(typed.get(field.name, field.type)) for field in book.schema]
    return pa.schema([*book_fields, *added])


def _refuse_own_files(book: Book, *targets: Path) -> None:
    """Raise BookError if an output file is one of the book's files."""
    for target in targets:
        if target.exists() and any(target.samefile(path) for path in book.paths):
            raise BookError(
                f"{target}: is one of the book's own files; name another file with --out"
            )


def _doubts(book: Book, bundle: Bundle) -> DoubtCollector:
    return DoubtCollector(book.name, bundle.definition, True, bundle.profile.usual_ranges())


def _check_before_writing(book: Book, bundle: Bundle, strict: bool, strict_doubts: bool) -> None:
    """Read the book first, to refuse it before anything is written or recorded."""
    doubts = _doubts(book, bundle)
    for part in book.parts():
        batch = read_loans(bundle.definition, part)
        if strict:
            _refuse_problems(book, batch.problems)
        doubts.add(batch)
    if strict_doubts:
        doubts.result().refuse()


def _refuse_problems(book: Book, problems: Sequence[Problem]) -> None:
    if problems:
        raise BookError(f"{book.bad_row(problems[0])} (--strict: nothing was written)")


def _typed_columns(book: Book, bundle: Bundle) -> dict[str, pa.DataType]:
    """The Parquet types of a CSV book's columns: doubles for number fields, else text.

    Whole numbers are doubles too: 1e300 is whole, but not a 64-bit integer.
    """
    if not book.is_text:
        return {}
    numbers = {field.name for field in bundle.definition.fields if field.is_number}
    return {
        field.name: pa.float64() if field.name in numbers else pa.string()
        for field in book.schema
        if pa.types.is_binary(field.type)
    }


def _book_columns(batch: CheckedPart, typed: dict[str, pa.DataType]) -> list[pa.Array]:
    """The book's columns, good rows only: unchanged, except that doubles in `typed` are parsed."""
    records = batch.part.records
    return [
        pa.array(batch.loans.numbers(name), from_pandas=True)
        if typed.get(name) == pa.float64()
        else filter_column(records.column(name), batch.good)
        for name in records.schema.names
    ]


def _added_columns(
    bundle: Bundle, decisions: Decisions, ids: Sequence[bytes] | None, reasons: bool
) -> list[pa.Array]:
    """The added columns: ids (if recorded), then those of ADDED; see `score_book` on `reasons`."""
    bands = pa.DictionaryArray.from_arrays(decisions.bands, list(BANDS))
    return [
        *([] if ids is None else [ids_of(ids)]),
        pa.array(decisions.probabilities),
        pa.array(decisions.late),
        bands.dictionary_decode(),
        *_reason_columns(bundle, decisions, reasons),
        pa.repeat(bundle.version, len(decisions.margins)),
    ]


def _reason_columns(bundle: Bundle, decisions: Decisions, show: bool) -> Iterator[pa.Array]:
    """The reason columns; empty unless `show`."""
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
    """Open the CSV file of wrong values; yields a function that writes them.

    The file gets its name at the end, and only if a wrong value was written.
    """
    if path.exists() and not overwrite:
        raise BookError(f"{path}: already exists; --overwrite replaces it")
    partial = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    any_written = False

    def write(problems: Sequence[Problem]) -> None:
        nonlocal any_written
        any_written |= bool(problems)
        for problem in problems:
            texts = (problem.field, problem.expected, problem.given)
            rows.writerow((problem.loan, *(map(escape_formula, texts) if safe else texts)))

    with ExitStack() as stack:
        try:
            file = open(  # noqa: SIM115
                partial, "x", encoding="utf-8", newline="", opener=private_files.opener
            )
            stack.callback(partial.unlink, missing_ok=True)
            # After an error elsewhere (a full disk), an error of closing would name this file.
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
