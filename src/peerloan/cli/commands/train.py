"""`peerloan train`: train and publish versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from peerloan.book import open_book
from peerloan.cli.console import (
    AIM,
    BOOK,
    DEFINITION,
    JSON,
    STRICT_DOUBTS,
    choose_definition,
    note,
    note_lines,
    open_store,
    print_json,
    print_table,
    progress,
)
from peerloan.registry import Bundle
from peerloan.training import CANDIDATES, Aim, PublishedCandidate, Table, recalibrate
from peerloan.training import train as train_candidates

_FIGURES = ("auc", "recall", "flagged", "brier", "log_loss")

_SLOW = ("basic",)


@click.command()
@BOOK
@DEFINITION
@click.option(
    "--candidate",
    "candidates",
    type=click.Choice(tuple(CANDIDATES)),
    multiple=True,
    help="Candidate to train; repeatable. Default: all.",
)
@click.option(
    "--quick", is_flag=True, help="Try one setting a candidate, with three folds and no forest."
)
@click.option("--later", help="Also measure the versions on this book, which is of a later time.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    help="Compare decisions between the groups of this column; repeatable.",
)
@AIM
@STRICT_DOUBTS
@click.option(
    "--recalibrate",
    "version",
    help="Don't train: shift and scale this version's log-odds to fit BOOK.",
)
@click.option("--promote", is_flag=True, help="Make the chosen version the champion.")
@click.option(
    "--breaking", is_flag=True, help="Promote even if requests that are valid today would fail."
)
@click.option("--why", default="", help="Reason of the promotion, stored in the history.")
@JSON
def train(
    book: str,
    definition: Path | None,
    candidates: tuple[str, ...],
    quick: bool,
    later: str | None,
    groups: tuple[str, ...],
    aim: tuple[str, float],
    strict_doubts: bool,
    version: str | None,
    promote: bool,
    breaking: bool,
    why: str,
    as_json: bool,
) -> None:
    """Train on a book with outcomes and publish versions.

    Tries each candidate's settings by cross-validation, calibrates the best of each, and
    publishes a version of each candidate with its report and model card.
    """
    if version is not None and (definition or candidates or quick or later or groups):
        raise click.UsageError(
            "--recalibrate can't be used with --definition, --candidate, --quick, --later "
            "or --group"
        )
    store = open_store()
    tables: list[Table] = []

    def on_table(table: Table) -> None:
        if strict_doubts:
            table.doubts.refuse("nothing was trained")
        note_lines(table)
        tables.append(table)

    if version is not None:
        # Without --aim, the version's own aim stays.
        context = click.get_current_context()
        has_aim = context.get_parameter_source("aim") is not click.core.ParameterSource.DEFAULT
        source = f"that of {version}"
        opened = open_book(book)
        with progress() as show:
            outcomes = [
                recalibrate(version, opened, store, show, Aim(*aim) if has_aim else None, on_table)
            ]
    else:
        chosen, source = choose_definition(definition)
        note(f"definition: {source}")
        opened = open_book(book)
        with progress() as show:
            outcomes = train_candidates(
                opened,
                chosen,
                store,
                _names(candidates, quick),
                aim=Aim(*aim),
                later=None if later is None else open_book(later),
                groups=groups,
                fast=quick,
                progress=show,
                on_table=on_table,
            )
    _show(outcomes, source, tables[0], as_json)
    best = outcomes[0]
    if len(outcomes) > 1:
        note(f"chosen: {best.why}")
    note(f"report: {store.folder(best.version) / 'report.html'}")
    for text in _remarks(best, store.load(best.version)):
        note(f"note: {text}")
    if promote:
        store.promote(best.version, why or f"chosen in training on {Path(book).name}", breaking)
        note(f"champion: {best.version}")


def _remarks(best: PublishedCandidate, bundle: Bundle) -> Iterator[str]:
    """Yield what a person should know before they promote the chosen version."""
    if best.metrics["flagged"] > 0.5:
        yield (
            f"the threshold flags {best.metrics['flagged']:.0%} of all loans; if that is too many, "
            "choose another aim (--aim)"
        )
    for name in bundle.definition.names:
        if bundle.profile.usual(name) is None:
            yield f"{name}: is missing in every loan, so no version can use it"
    if bundle.manifest.intervals["auc"][0] <= 0.5:
        yield (
            f"with an AUC of {best.metrics['auc']:.4f}, {best.version} may rank loans no better "
            "than chance"
        )


def _names(candidates: tuple[str, ...], quick: bool) -> tuple[str, ...]:
    every = tuple(name for name in CANDIDATES if not (quick and name in _SLOW))
    return tuple(dict.fromkeys(candidates)) or every


def _show(outcomes: list[PublishedCandidate], source: str, table: Table, as_json: bool) -> None:
    if as_json:
        candidates = [
            {
                "candidate": o.candidate,
                "version": o.version,
                "chosen": o.is_chosen,
                **({"why": o.why} if o.why else {}),
                "metrics": o.metrics,
            }
            for o in outcomes
        ]
        print_json({"definition": source, "candidates": candidates} | _table_json(table))
        return
    columns = [*_FIGURES, *(["later_auc"] if "later_auc" in outcomes[0].metrics else [])]
    print_table(
        ("version", "chosen", *columns),
        [
            (
                o.version,
                "yes" if o.is_chosen else "",
                *(f"{o.metrics[name]:.4f}" for name in columns),
            )
            for o in outcomes
        ],
    )


def _table_json(table: Table) -> dict[str, Any]:
    """Return the label's counts and the doubts of the table."""
    label, late = table.loans.definition.label, int(table.late.sum())
    return {
        "label": {
            "column": label.column,
            "late": label.late,
            "loans": len(table.late),
            "late_loans": late,
            "late_share": late / len(table.late),
            "without_outcome": table.without_outcome,
        },
        **table.doubts.to_json(),
    }
