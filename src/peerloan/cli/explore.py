"""The command that explores a book."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from peerloan.book import BookError, open_book
from peerloan.cli.console import (
    BOOK,
    DEFINITION,
    JSON,
    OUT,
    OVERWRITE,
    No,
    definition_of,
    note,
    print_json,
    progress,
)
from peerloan.loan.text import counted
from peerloan.training.exploration import find, measure, show_page


@click.command()
@BOOK
@click.option("-o", "--out", type=OUT, required=True, help="The report's file.")
@DEFINITION
@OVERWRITE
@JSON
def explore(book: str, out: Path, definition: Path | None, overwrite: bool, as_json: bool) -> None:
    """Say what is notable about a book with outcomes, and write a report as one HTML file."""
    chosen, source = definition_of(definition)
    opened = open_book(book)
    if out.exists() and any(out.samefile(path) for path in opened.paths):
        raise BookError(f"{out}: is the book itself")
    if out.exists() and not overwrite:
        raise No(f"{out}: is there already (--overwrite replaces it)")
    with progress() as show:
        study = measure(opened, chosen, show, source)
        findings = find(study)
        page = show_page(study, findings, show)
    try:
        out.write_text(page, "utf-8")
    except OSError as error:
        raise No(f"{out}: can't be written: {error.strerror}") from None
    if as_json:
        print_json(asdict(study) | {"findings": [asdict(each) for each in findings]})
        return
    click.echo(f"definition: {source}")
    for each in findings:
        click.echo(f"{each.topic}: {each}")
    note(f"{out}: {counted(len(study.features), 'feature')}, {counted(len(findings), 'finding')}")
