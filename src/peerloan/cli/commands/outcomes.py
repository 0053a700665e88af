"""`peerloan outcomes`: store outcomes of loans."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pyarrow as pa

from peerloan.book import Book, BookError, Part, filter_column, open_book, read_cells
from peerloan.book.header import check_header, check_separator
from peerloan.cli.console import (
    DEFINITION,
    JSON,
    CommandError,
    choose_definition,
    note,
    print_json,
    progress,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.database import LedgerUnavailable
from peerloan.formatting import plural
from peerloan.ledger.outcome_parsing import OutcomeParser
from peerloan.ledger.outcomes import COMMAND_LINE, OutcomeRecorder, RecordedOutcome, Status
from peerloan.loan import Problem, Suggestions
from peerloan.loan.labels import is_unknown
from peerloan.registry.alias_state import current_user

# Rows of one transaction. Decisions of a service wait for it.
_TRANSACTION_ROWS = 2_000
# How many wrong values are shown one by one.
_SHOWN = 20
_UNKNOWN, _EARLY = "without_outcome", "early"


@click.command()
@click.argument("file", metavar="FILE")
@DEFINITION
@JSON
def outcomes(file: str, definition: Path | None, as_json: bool) -> None:
    """Store outcomes of loans in the ledger.

    FILE is a table with one outcome a row. The column `id` names a decision; or `loan_id` and
    `date` name a loan and the day on which the outcome was observed. The outcome is in the column
    `late`, or in the label column of the loan definition.

    Valid rows are stored even if others are refused; then the exit code is 1. Rows without an
    outcome are skipped and counted. The same file again changes nothing. A different outcome
    corrects the earlier one.
    """
    chosen, source = choose_definition(definition)
    book = open_book(file)
    reader = OutcomeParser(chosen)
    names = _columns(book, reader)
    database = ledger_database()
    database.check()
    recorder = OutcomeRecorder(database, chosen, current_user() + COMMAND_LINE)
    counts: Counter[str] = Counter()
    problems: list[Problem] = []
    with progress() as show:
        # Counting the rows first takes a fraction of the time that storing takes.
        total = sum(part.size for part in book.parts(partial(show, f"reading {file}")))

        def show_rows() -> None:
            show(f"outcomes of {file}", _rows_of(counts) / max(total, 1))

        for part in book.parts():
            wrong = _record(
                recorder, file, _with_outcome(part, reader, counts), names, counts, show_rows
            )
            # Keep no more problems in memory than are shown.
            problems += wrong if as_json else wrong[: _SHOWN - len(problems)]
        show_rows()
    if as_json:
        _print_json(file, source, book, counts, problems)
    else:
        _print(file, book, counts, problems, chosen.roles.horizon[0])
    if refused := counts["refused"]:
        verb = "was" if refused == 1 else "were"
        hint = "" if as_json else " (--json names every one)"
        raise CommandError(f"{file}: {plural(refused, 'row')} {verb} refused{hint}")


def _statuses(counts: Counter[str]) -> dict[str, int]:
    return {name: counts[name] for name in (*get_args(Status), "refused")}


def _print_json(
    file: str, source: str, book: Book, counts: Counter[str], problems: Sequence[Problem]
) -> None:
    rows = [
        {"row": each.loan, "field": each.field, "expected": each.expected, "given": each.given}
        for each in problems
    ]
    skipped = {_UNKNOWN: counts[_UNKNOWN], _EARLY: counts[_EARLY]}
    print_json(
        {"file": file, "definition": source, **_statuses(counts), **skipped}
        | {"problems": rows, "notes": list(book.notes)}
    )


def _print(
    file: str, book: Book, counts: Counter[str], problems: Sequence[Problem], first_day: int
) -> None:
    """Print the counts. `first_day`: days from a decision to the first outcome that counts."""
    for text in book.notes:
        note(f"note: {text}")
    for each in problems:
        place = f"row {each.loan}, {each.field}"
        click.echo(f"{place}: expected {each.expected}, given {each.given}")
    words = [f"{count:,} {name}" for name, count in _statuses(counts).items()]
    words += [f"{counts[_UNKNOWN]:,} without an outcome yet"] if counts[_UNKNOWN] else []
    click.echo(f"{file}: {plural(_rows_of(counts), 'row')}: {', '.join(words)}")
    if early := counts[_EARLY]:
        note(
            f"note: {plural(early, 'outcome')} came earlier than {plural(first_day, 'day')} after "
            f"the decision, so {'it does' if early == 1 else 'they do'} not count: stored, but no "
            "figure, rule or version uses early outcomes; report again from that day on"
        )


def _rows_of(counts: Counter[str]) -> int:
    """Count the rows read so far. Early ones are in `counts` by their status too."""
    return counts.total() - counts[_EARLY]


def _with_outcome(part: Part, reader: OutcomeParser, counts: Counter[str]) -> Part:
    """Return the rows of a part that have an outcome, and count the others."""
    name = next(name for name in reader.labels if name in part.records.schema.names)
    label = reader.labels[name]
    texts = ("" if cell is None else cell for cell in read_cells(part, name))
    unknown = [isinstance(text, str) and is_unknown(text, label) for text in texts]
    known = ~np.array(unknown, dtype=np.bool_)
    if known.all():
        return part
    counts[_UNKNOWN] += int(np.count_nonzero(~known))
    columns = [filter_column(column, known) for column in part.records.columns]
    records = pa.RecordBatch.from_arrays(columns, schema=part.records.schema)
    return replace(part, records=records, numbers=part.numbers[known])


def _record(
    recorder: OutcomeRecorder,
    file: str,
    part: Part,
    names: list[str],
    counts: Counter[str],
    show_rows: Callable[[], None],
) -> list[Problem]:
    """Store the outcomes of a part and count them. Returns what is wrong with its rows, by row."""
    wrong = list(part.problems)
    counts["refused"] += len(wrong)
    for rows in _rows(part, names):
        try:
            answers = recorder.record(rows)
        except LedgerUnavailable as error:
            raise CommandError(
                f"{file}: stopped before row {rows[0][0]:,}: {error}; run it again: the rows "
                "before are stored, and nothing is stored twice"
            ) from None
        for answer in answers:
            if isinstance(answer, RecordedOutcome):
                counts[answer.status] += 1
                counts[_EARLY] += answer.first_counting_day is not None
            else:
                counts["refused"] += 1
                wrong += answer
        show_rows()
    wrong.sort(key=lambda problem: problem.loan or 0)
    return wrong


def _rows(part: Part, names: list[str]) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield the numbered rows of a part, in lists of one transaction each."""
    columns = [read_cells(part, name) for name in names]
    rows = (dict(zip(names, cells, strict=True)) for cells in zip(*columns, strict=True))
    numbered = zip(part.numbers.tolist(), rows, strict=True)
    while batch := list(itertools.islice(numbered, _TRANSACTION_ROWS)):
        yield batch


def _columns(book: Book, reader: OutcomeParser) -> list[str]:
    """Return the columns that hold outcomes. Raises BookError if some are missing."""
    names = [name for name in reader.names if name in book.columns]
    labels = [name for name in reader.labels if name in names]
    if not labels:
        for label in reader.labels:
            check_separator(book.name, book.files[0], [label])
    if not names:
        check_header(book.name, book.columns)
    if "late" in labels and "probability" in book.columns:
        raise BookError(
            f"{book.name}: has a column probability, so its column late is a decision, not an "
            "outcome; leave both columns out"
        )
    if len(labels) > 1:
        raise BookError(f"{book.name}: expected one column of {' and '.join(labels)}, got both")
    others = [name for name in book.columns if name not in names]
    if not labels:
        raise _missing_column(book, " or ".join(reader.labels), [*reader.labels], others)
    by_loan = "date" in names and any(name in names for name in reader.loan_names)
    if "id" not in names and not by_loan:
        absent = [name for name in ("loan_id", "date") if name not in names]
        raise _missing_column(book, "id, or the columns loan_id and date", absent, others)
    return names


def _missing_column(book: Book, what: str, absent: list[str], others: list[str]) -> BookError:
    near = _nearest(absent, tuple(others))
    hint = f" (did you mean {near}?)" if near else ""
    return BookError(f"{book.name}: expected a column {what}, which is missing{hint}")


def _nearest(absent: list[str], others: tuple[str, ...]) -> str | None:
    suggestions = Suggestions()
    return next(filter(None, (suggestions.nearest(name, others) for name in absent)), None)
