"""Commands over books: sample, define, check, score."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import click

from peerloan.book import check_book, draft_definition, open_book, open_writer
from peerloan.cli.console import (
    BOOK,
    DEFINITION,
    JSON,
    SPREADSHEET_SAFE,
    STRICT_DOUBTS,
    No,
    bundle_of,
    definition_of,
    expect_many_records,
    note,
    note_lines,
    print_json,
    progress,
    store,
)
from peerloan.cli.opening import ledger_database
from peerloan.ledger import LedgerError, Recorder
from peerloan.ledger.own_seal import ready_seal
from peerloan.loan.text import counted
from peerloan.model import BundleError, StoreError
from peerloan.model.states import current_user
from peerloan.sample import SCENARIOS, SCHEMA, batches
from peerloan.scoring import score_book
from peerloan.settings import read_settings

_OUT = click.Path(path_type=Path)
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing file.")


@click.command()
@click.argument("out", type=_OUT)
@click.option("--loans", default=20_000, show_default=True, help="How many loans.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same book.")
@click.option("--scenario", type=click.Choice(SCENARIOS), default="calm", show_default=True)
@_OVERWRITE
def sample(out: Path, loans: int, seed: int, scenario: str, overwrite: bool) -> None:
    """Write a synthetic book to OUT (.csv, .csv.gz or .parquet)."""
    if loans < 1 or seed < 0:
        raise click.BadParameter("expected --loans of at least 1 and --seed of at least 0")
    with open_writer(out, SCHEMA, overwrite=overwrite) as writer, progress() as show:
        written = 0
        for batch in batches(loans, seed, scenario):
            writer.write(batch)
            written += batch.num_rows
            show(f"{counted(loans, 'loan')} to {out}", written / loans)


@click.command()
@BOOK
@click.option("--label", required=True, help="The column that says what became of the loan.")
@click.option("--late", help="The label's value that means late. Default: guessed, with a doubt.")
@click.option("-o", "--out", type=_OUT, required=True, help="The definition's file.")
@_OVERWRITE
def define(book: str, label: str, late: str | None, out: Path, overwrite: bool) -> None:
    """Draft a loan definition from a table; its doubts stand in it as comments."""
    if out.exists() and not overwrite:
        raise No(f"{out}: is there already (--overwrite replaces it)")
    with progress() as show:
        text = draft_definition(open_book(book), label, late, partial(show, f"reading {book}"))
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise No(f"{out}: can't be written: {error.strerror}") from None
    # Those about the label stand at the top: the wrong way round, every figure is.
    for line in text.partition("\nmodel = ")[0].splitlines():
        if line.startswith("# doubt: "):
            note(line.removeprefix("# "))
    fields, doubts = counted(text.count("[[field]]"), "field"), text.count("# doubt:")
    note(f"{out}: {fields}, {counted(doubts, 'doubt')}; read it before you train")


@click.command()
@BOOK
@DEFINITION
@JSON
def check(book: str, definition: Path | None, as_json: bool) -> None:
    """Name every bad row and column of a book, count missing values, and name doubts."""
    chosen, source = definition_of(definition)
    opened = open_book(book)
    with progress() as show:
        usual = _usual_ranges() if definition is None else None
        report = check_book(opened, chosen, partial(show, f"reading {book}"), usual=usual)
    if as_json:
        print_json(report.to_json() | {"definition": source})
    else:
        click.echo(f"definition: {source}")
        for line in report.lines():
            click.echo(line)
    if not report.ok:
        raise No(f"{book}: not as the definition says")


def _usual_ranges() -> dict[str, tuple[float, float]] | None:
    """What the champion was trained on, if there is one that can be read."""
    here = store()
    if (champion := here.state().champion) is None:
        return None
    with suppress(BundleError, StoreError):
        return here.load(champion).profile.usual_ranges()
    return None


@click.command()
@BOOK
@click.option("-o", "--out", type=_OUT, required=True, help=".csv, .csv.gz or .parquet.")
@click.option("--model", help="A version. Default: the champion.")
@click.option("--strict", is_flag=True, help="Stop at the first bad row and write nothing.")
@STRICT_DOUBTS
@click.option(
    "--reasons",
    type=click.Choice(("all", "none")),
    default="all",
    show_default=True,
    help="Without them an ONNX version is many times faster.",
)
@click.option(
    "--record", is_flag=True, help="Keep the decisions in the ledger too; OUT gains their ids."
)
@SPREADSHEET_SAFE
@_OVERWRITE
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
    """Decide on every loan of a book: its columns, and probability, late, band and reasons.

    Rows that can't be scored go to OUT.rejects, and the exit code is 1.
    """
    bundle = bundle_of(model)
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
        for each in scored.notes:
            note(f"note: {each}")
        loans = counted(scored.rows, "loan")
        click.echo(f"{out}: {loans}, {scored.late:,} of them late by {version}")
        if recorder is not None:
            note(f"all of them are recorded, with the request id {recorder.request_id}")
    if scored.rejected:
        raise No(f"{counted(scored.rejected, 'row')} could not be scored: see {scored.rejects}")


@contextmanager
def _recorder() -> Iterator[Recorder]:
    """What keeps a book's decisions in the ledger that the settings name."""
    settings = read_settings()
    database = ledger_database()
    database.ready()
    recorder, done = None, False
    try:
        with Recorder(
            database, ready_seal(settings.seal_folder, database), current_user()
        ) as recorder:
            yield recorder
        done = True
    except LedgerError as error:
        raise No(f"the ledger, {database}: {error}") from None
    finally:
        # Also if the run was stopped: what is recorded stays.
        if recorder is not None and recorder.kept and not done:
            verb = "was" if recorder.kept == 1 else "were"
            note(
                f"{counted(recorder.kept, 'decision')} {verb} recorded already, with the request "
                f"id {recorder.request_id}, and in no file; another run makes new ones"
            )
