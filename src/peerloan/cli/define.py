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
    No,
    note,
    progress,
)
from peerloan.loan.text import counted


@click.command()
@BOOK
@click.option("--label", required=True, help="The column that says what became of the loan.")
@click.option("--late", help="The label's value that means late. Default: guessed, with a doubt.")
@click.option("-o", "--out", type=OUT, required=True, help="The definition's file.")
@OVERWRITE
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
