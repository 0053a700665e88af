"""`peerloan define`: draft a loan definition from a book."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from peerloan.book import draft_definition, open_book
from peerloan.cli.console import (
    BOOK,
    OUT,
    OVERWRITE,
    CommandError,
    note,
    progress,
)
from peerloan.formatting import plural


@click.command()
@BOOK
@click.option("--label", required=True, help="Column with the outcome of the loan.")
@click.option(
    "--late",
    help="Value of the label that means late. Default: guessed; the draft then has a doubt.",
)
@click.option("-o", "--out", type=OUT, required=True, help="File to write (TOML).")
@OVERWRITE
def define(book: str, label: str, late: str | None, out: Path, overwrite: bool) -> None:
    """Draft a loan definition from a table.

    Read the `# doubt:` comments in the draft before you train.
    """
    if out.exists() and not overwrite:
        raise CommandError(f"{out}: already exists; --overwrite replaces it")
    with progress() as show:
        text = draft_definition(open_book(book), label, late, partial(show, f"reading {book}"))
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise CommandError(f"{out}: can't be written: {error.strerror}") from None
    # The doubts about the label are at the top of the draft. They matter most: if late and on
    # time are exchanged, every figure is wrong.
    for line in text.partition("\nmodel = ")[0].splitlines():
        if line.startswith("# doubt: "):
            note(line.removeprefix("# "))
    fields, doubts = plural(text.count("[[field]]"), "field"), text.count("# doubt:")
    note(f"{out}: {fields}, {plural(doubts, 'doubt')}; read it before you train")
