"""The command that trains."""

from __future__ import annotations

from pathlib import Path

import click

from peerloan.book import open_book
from peerloan.cli.console import (
    BOOK,
    DEFINITION,
    JSON,
    definition_of,
    note,
    print_json,
    print_table,
    progress,
    store,
)
from peerloan.training import CANDIDATES
from peerloan.training import train as train_candidates

_FIGURES = ("auc", "recall", "flagged", "brier", "log_loss")


@click.command()
@BOOK
@DEFINITION
@click.option(
    "--candidate",
    "candidates",
    type=click.Choice(tuple(CANDIDATES)),
    multiple=True,
    help="Which to train; may be repeated. Default: all.",
)
@click.option("--promote", is_flag=True, help="Make the best one the champion.")
@click.option("--breaking", is_flag=True, help="Promote even if callers' requests may fail.")
@click.option("--why", default="", help="The reason, for the history.")
@JSON
def train(
    book: str,
    definition: Path | None,
    candidates: tuple[str, ...],
    promote: bool,
    breaking: bool,
    why: str,
    as_json: bool,
) -> None:
    """Train on a book with outcomes, judge on held-out loans, and publish a version of each."""
    chosen, source = definition_of(definition)
    note(f"definition: {source}")
    here = store()
    names = tuple(dict.fromkeys(candidates)) or tuple(CANDIDATES)
    with progress() as show:
        outcomes = train_candidates(open_book(book), chosen, here, names, show)
    best = outcomes[0]
    if as_json:
        print_json(
            {
                "definition": source,
                "candidates": [
                    {"candidate": o.candidate, "version": o.version, "metrics": o.metrics}
                    for o in outcomes
                ],
            }
        )
    else:
        print_table(
            ("version", *_FIGURES),
            [(o.version, *(f"{o.metrics[name]:.4f}" for name in _FIGURES)) for o in outcomes],
        )
    if promote:
        here.promote(
            best.version, why or f"best AUC on held-out loans of {Path(book).name}", breaking
        )
        note(f"champion: {best.version}")
