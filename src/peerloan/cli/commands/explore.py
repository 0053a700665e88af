"""`peerloan explore`: measure a book with outcomes."""

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
    CommandError,
    choose_definition,
    note,
    print_json,
    progress,
)
from peerloan.formatting import plural
from peerloan.training.exploration import explore as explore_book


@click.command()
@BOOK
@click.option("-o", "--out", type=OUT, required=True, help="Report to write (HTML).")
@DEFINITION
@OVERWRITE
@JSON
def explore(book: str, out: Path, definition: Path | None, overwrite: bool, as_json: bool) -> None:
    """Measure a book with outcomes and write a report.

    Prints what is notable, the most important first. The report is one HTML file.
    """
    chosen, source = choose_definition(definition)
    opened = open_book(book)
    if out.exists() and any(out.samefile(path) for path in opened.paths):
        raise BookError(f"{out}: is one of the book's own files; name another file with --out")
    if out.exists() and not overwrite:
        raise CommandError(f"{out}: already exists; --overwrite replaces it")
    with progress() as show:
        exploration = explore_book(opened, chosen, show, source)
    study, findings = exploration.study, exploration.findings
    try:
        out.write_text(exploration.page, "utf-8")
    except OSError as error:
        raise CommandError(f"{out}: can't be written: {error.strerror}") from None
    if as_json:
        print_json(asdict(study) | {"findings": [asdict(finding) for finding in findings]})
        return
    click.echo(f"definition: {source}")
    for finding in findings:
        click.echo(f"{finding.topic}: {finding}")
    note(f"{out}: {plural(len(study.features), 'feature')}, {plural(len(findings), 'finding')}")
