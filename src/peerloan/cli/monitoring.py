"""The command that watches the model."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from peerloan.book import open_book
from peerloan.cli.console import (
    JSON,
    No,
    bundle_of,
    expect_many_records,
    note,
    print_json,
    print_table,
    progress,
)
from peerloan.monitoring.books import watch_book
from peerloan.monitoring.estimates import Estimate
from peerloan.monitoring.figures import Drift, Watched
from peerloan.monitoring.figures import as_json as figures_json
from peerloan.monitoring.rules import Rules


@click.command()
@click.option("--book", required=True, metavar="BOOK", help="The book that is looked at.")
@click.option("--model", help="A version. Default: the champion.")
@JSON
def monitor(book: str, model: str | None, as_json: bool) -> None:
    """Say how a book's loans have moved from those that a version was trained on, and how good it
    still is: estimated from its probabilities, and realised where the book has outcomes.
    """
    bundle = bundle_of(model)
    opened = open_book(book)
    expect_many_records()
    with progress() as show:
        watched = watch_book(opened, bundle, Rules(), partial(show, f"reading {book}"))
    if watched is None:
        raise No(f"{book}: holds no loan that can be scored")
    if as_json:
        print_json(_json(book, watched))
    else:
        _print(book, watched)


def _json(book: str, found: Watched) -> dict[str, Any]:
    window = {"book": book, "loans": found.loans, "rejected": found.rejected}
    return {"model": found.version, "window": window} | figures_json(found) | {"notes": found.notes}


def _print(book: str, watched: Watched) -> None:
    for line in watched.notes:
        note(f"note: {line}")
    click.echo(f"{book}: {watched.loans:,} loans by {watched.version}")
    if watched.rejected:
        rows = "1 row" if watched.rejected == 1 else f"{watched.rejected:,} rows"
        click.echo(f"{rows} could not be scored, left out here")
    print_table(
        ("feature", "PSI", "95 % without chance", "missing", "was", "not seen before"),
        [_row(each) for each in (*watched.features, watched.score)],
    )
    estimated, realised = watched.estimated, watched.realised
    print_table(
        ("figure", "estimated", "realised"),
        [
            (
                name.replace("_", " "),
                _shown(getattr(estimated, name)),
                "–" if realised is None else _shown(getattr(realised, name)),
            )
            for name in ("late_rate", "auc", "recall")
        ],
    )
    if watched.calibration is not None:
        click.echo(f"late loans, of those expected: {_shown(watched.calibration.ratio)}")
    for spoken in watched.spoken:
        click.echo(
            f"{spoken.level}: {spoken.rule} of {spoken.about}: {spoken.value:.3f}, "
            f"the limit is {spoken.limit:.3f}"
        )
    if not watched.spoken:
        click.echo("calm: no rule speaks")


def _row(drift: Drift) -> tuple[str, ...]:
    low, high = drift.psi.interval()
    return (
        *(drift.name, f"{drift.psi.value:.3f}", f"{low:.3f} to {high:.3f}"),
        *(f"{drift.missing.value:.1%}", f"{drift.reference_missing:.1%}"),
        ", ".join(f"{value} ({loans:,})" for value, loans in drift.strange[:3]),
    )


def _shown(each: Estimate | None) -> str:
    return "–" if each is None else f"{each.value:.3f} ({each.low:.3f} to {each.high:.3f})"
