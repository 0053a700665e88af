"""`peerloan check`: check every value of a book."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from peerloan.book import check_book, open_book
from peerloan.cli.console import (
    BOOK,
    DEFINITION,
    JSON,
    CommandError,
    choose_definition,
    open_store,
    print_json,
    progress,
)
from peerloan.registry import RegistryError


@click.command()
@BOOK
@DEFINITION
@JSON
def check(book: str, definition: Path | None, as_json: bool) -> None:
    """Check every value of a book.

    Names every bad row and column, counts missing values, and names doubts: values that are
    allowed but look wrong. The exit code is 1 if a row or a column is bad.
    """
    chosen, source = choose_definition(definition)
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
        raise CommandError(
            f"{book}: does not fit the definition; the report names every bad row and column"
        )


def _usual_ranges() -> dict[str, tuple[float, float]] | None:
    """Return the value ranges seen in the champion's training, if it can be read."""
    store = open_store()
    if (champion := store.state().champion) is None:
        return None
    with suppress(RegistryError):
        return store.load(champion).profile.usual_ranges()
    return None
