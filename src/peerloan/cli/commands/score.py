"""`peerloan score`: decide on every loan of a book."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import click

from peerloan.book import open_book
from peerloan.cli.console import (
    BOOK,
    JSON,
    OUT,
    OVERWRITE,
    SPREADSHEET_SAFE,
    STRICT_DOUBTS,
    CommandError,
    expect_many_records,
    load_bundle,
    note,
    note_lines,
    print_json,
    progress,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.database import LedgerError
from peerloan.formatting import plural
from peerloan.ledger import BatchWriter
from peerloan.ledger.seal_ownership import open_seal
from peerloan.registry.alias_state import current_user
from peerloan.scoring import score_book
from peerloan.settings import read_settings


@click.command()
@BOOK
@click.option(
    "-o", "--out", type=OUT, required=True, help="File to write: .csv, .csv.gz or .parquet."
)
@click.option("--model", help="Version to decide with. Default: the champion.")
@click.option("--strict", is_flag=True, help="Stop at the first bad row and write nothing.")
@STRICT_DOUBTS
@click.option(
    "--reasons",
    type=click.Choice(("all", "none")),
    default="all",
    show_default=True,
    help="Whether to add reasons. Without them an ONNX version is many times faster.",
)
@click.option(
    "--record",
    is_flag=True,
    help="Store the decisions in the ledger too, and add their ids to OUT.",
)
@SPREADSHEET_SAFE
@OVERWRITE
@JSON
def score(
    book: str,
    out: Path,
    model: str | None,
    strict: bool,
    strict_doubts: bool,
    reasons: str,
    record: bool,
    spreadsheet_safe: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Decide on every loan of a book.

    Writes the book's columns with probability, late, band, reasons and the version. Rows that
    can't be scored go to OUT.rejects, and the exit code is 1.
    """
    bundle = load_bundle(model)
    version = bundle.version
    opened = open_book(book)
    expect_many_records()
    with progress() as show, _recorder() if record else nullcontext() as recorder:
        show_scoring: Callable[[float], None] = partial(show, f"scoring with {version}")
        scored = score_book(
            opened,
            bundle,
            out,
            strict=strict,
            strict_doubts=strict_doubts,
            overwrite=overwrite,
            spreadsheet_safe=spreadsheet_safe,
            reasons=reasons == "all",
            recorder=recorder,
            progress=show_scoring,
        )
        show_scoring(1.0)
    note_lines(scored.doubts)
    if as_json:
        print_json(
            {
                "out": str(out),
                "model_version": version,
                "rows": scored.rows,
                "late": scored.late,
                "rejected": scored.rejected,
                "rejects": scored.rejects and str(scored.rejects),
                "notes": scored.notes,
                **scored.doubts.to_json(),
                **({} if recorder is None else {"request_id": recorder.request_id}),
            }
        )
    else:
        for text in scored.notes:
            note(f"note: {text}")
        loans = plural(scored.rows, "loan")
        click.echo(f"{out}: {loans}, {scored.late:,} of them flagged by {version}")
        if recorder is not None:
            note(f"recorded all of them in the ledger, with the request id {recorder.request_id}")
    if scored.rejected:
        raise CommandError(
            f"{plural(scored.rejected, 'row')} could not be scored: see {scored.rejects}"
        )


@contextmanager
def _recorder() -> Iterator[BatchWriter]:
    """Open a writer of decisions to the ledger that the settings name."""
    settings = read_settings()
    database = ledger_database()
    database.prepare()
    recorder, done = None, False
    try:
        with BatchWriter(
            database, open_seal(settings.seal_folder, database), current_user()
        ) as recorder:
            yield recorder
        done = True
    except LedgerError as error:
        raise CommandError(f"the ledger, {database}: {error}") from None
    finally:
        # Also if the run was stopped: recorded decisions stay in the ledger.
        if recorder is not None and recorder.kept and not done:
            verb = "was" if recorder.kept == 1 else "were"
            note(
                f"{plural(recorder.kept, 'decision')} {verb} recorded already, with the request "
                f"id {recorder.request_id}, but no file was written; another run makes "
                "new decisions"
            )
