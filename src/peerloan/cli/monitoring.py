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
from peerloan.monitoring.books import Drift, Watched, watch_book
from peerloan.monitoring.estimates import Estimate
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


def _json(book: str, watched: Watched) -> dict[str, Any]:
    estimated, realised, calibration = watched.estimated, watched.realised, watched.calibration
    return {
        "model": watched.version,
        "window": {"book": book, "loans": watched.loans, "rejected": watched.rejected},
        "features": [{"feature": each.name} | _drift(each) for each in watched.features],
        "score": _drift(watched.score),
        "estimated": {name: _estimate(each) for name, each in estimated._asdict().items()},
        "realised": realised
        and {
            name: _estimate(each) if isinstance(each, Estimate) else each
            for name, each in realised._asdict().items()
        },
        "calibration": calibration
        and {
            "ratio": _estimate(calibration.ratio),
            "slope": calibration.slope,
            "intercept": calibration.intercept,
            "bands": [each._asdict() for each in calibration.bands],
        },
        "rules": [each._asdict() for each in watched.spoken],
        "notes": watched.notes,
    }


def _drift(drift: Drift) -> dict[str, Any]:
    low, high = drift.psi.interval()
    return {
        "psi": drift.psi.value,
        "by_chance": drift.psi.by_chance,
        "interval": [low, high],
        "missing": _estimate(drift.missing),
        "reference_missing": drift.reference_missing,
        "bins": [
            {"bin": name, "loans": loans, "reference": share}
            for name, loans, share in zip(drift.bins, drift.counts, drift.reference, strict=True)
        ],
        "strange": [{"value": value, "loans": loans} for value, loans in drift.strange],
    }


def _estimate(each: Estimate | None) -> dict[str, float] | None:
    return None if each is None else each._asdict()


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
