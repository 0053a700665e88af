"""`peerloan bootstrap`: train and promote the first champion of a new store."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from peerloan.book import open_book, open_writer
from peerloan.cli.console import (
    DEFINITION,
    choose_definition,
    note,
    note_lines,
    open_store,
    progress,
)
from peerloan.loan import default_definition
from peerloan.registry import Store, StoreError
from peerloan.sample_data import SCHEMA, batches
from peerloan.training import PublishedCandidate, train

LOANS = 60_000


@click.command()
@click.argument("book", metavar="[BOOK]", required=False)
@DEFINITION
def bootstrap(book: str | None, definition: Path | None) -> None:
    """Train and promote the first champion of a new store.

    Trains every candidate on BOOK. Without BOOK, trains two scorecards on the built-in sample.
    Does nothing if the store has a champion, so it can be part of a container's start.
    """
    store = open_store()
    if champion := store.state().champion:
        note(f"champion: {champion}; nothing to do")
        return
    if book is None:
        with TemporaryDirectory() as folder:
            outcomes = train_on_sample(Path(folder) / "sample.csv", store)
        why = "the first, trained on the built-in sample"
    else:
        chosen, source = choose_definition(definition)
        note(f"definition: {source}")
        with progress() as show:
            outcomes = train(open_book(book), chosen, store, progress=show, on_table=note_lines)
        why = f"the first, trained on {Path(book).name}"
    best = outcomes[0].version
    try:
        store.promote(best, why, first=True)
    except StoreError as error:
        if store.state().champion is None:
            raise
        note(str(error))  # another process has promoted a version meanwhile
    else:
        note(f"champion: {best}")


def train_on_sample(path: Path, store: Store) -> list[PublishedCandidate]:
    """Write a sample book and train two scorecards on it. Returns the chosen one first."""
    with progress() as show:
        with open_writer(path, SCHEMA, overwrite=True) as writer:
            for batch in batches(LOANS):
                writer.write(batch)
        show(f"writing {LOANS:,} synthetic loans to {path}", 1.0)
        return train(
            open_book(path),
            default_definition(),
            store,
            ("binned", "additive"),
            fast=True,
            progress=show,
        )
