"""`peerloan monitor`: measure drift and performance."""

from __future__ import annotations

import logging
import re
import sys
from functools import partial
from typing import Any

import click

from peerloan.book import open_book
from peerloan.cli.console import (
    JSON,
    STRICT_DOUBTS,
    CommandError,
    bundle_of,
    expect_many_records,
    note,
    note_lines,
    print_json,
    print_table,
    progress,
    store,
)
from peerloan.cli.ledger_options import Moment, countable, ledger_database
from peerloan.clock import HOUR_MS, now_ms
from peerloan.database import Database
from peerloan.database.errors import LedgerReadOnly
from peerloan.formatting import plural
from peerloan.ledger import SOURCES
from peerloan.monitoring.book_report import monitor_book
from peerloan.monitoring.config import MonitoringConfig, read_config
from peerloan.monitoring.counting.decisions import CountedElsewhere, count_new
from peerloan.monitoring.counting.early_outcomes import EarlyOutcomes
from peerloan.monitoring.counting.outcomes import count_outcomes
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.monitoring.window_metrics import Drift, WindowMetrics
from peerloan.monitoring.window_metrics import metrics_json as figures_json
from peerloan.monitoring.windows import Window, read_window, window_figures, window_json
from peerloan.settings import read_settings
from peerloan.stats.estimate import Estimate

_INTERVAL = re.compile(r"([0-9]{1,4})([mhd])")
_SECONDS = {"m": 60.0, "h": 3_600.0, "d": 86_400.0}


class _Interval(click.ParamType[float]):
    """Parses the time between two rounds, such as 30m, into seconds."""

    name = "interval"

    def convert(self, value: object, param: object, ctx: object) -> float:  # noqa: ARG002
        match = _INTERVAL.fullmatch(str(value))
        if match is None or not int(match[1]):
            raise click.BadParameter(
                f"expected minutes, hours or days, such as 30m, 1h or 1d, given {value!r}"
            )
        return int(match[1]) * _SECONDS[match[2]]


@click.command()
@click.option("--book", metavar="BOOK", help="Measure this book instead of the ledger.")
@click.option("--since", type=Moment(), metavar="MOMENT", help="Decisions from this moment on.")
@click.option("--until", type=Moment(), metavar="MOMENT", help="Decisions before this moment.")
@click.option("--source", type=click.Choice(SOURCES), help="Only decisions of this source.")
@click.option("--model", help="Version to measure. Default: the champion.")
@STRICT_DOUBTS
@JSON
@click.option(
    "--every", type=_Interval(), help="Keep watching the ledger, this often: 30m, 1h, 1d."
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="With --every: address of the metrics endpoint.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(1, 65535),
    help="With --every: port of the metrics endpoint. Default: no endpoint.",
)
@click.pass_context
def monitor(
    context: click.Context,
    book: str | None,
    since: int | None,
    until: int | None,
    source: str | None,
    model: str | None,
    strict_doubts: bool,
    as_json: bool,
    every: float | None,
    metrics_host: str,
    metrics_port: int | None,
) -> None:
    """Measure drift and performance of a version.

    Shows how its loans differ from those that it was trained on, and how good it still is:
    estimated from its probabilities, and realised where outcomes are known. Measures the ledger's
    decisions of the last days (in whole hours), or a book.

    With --every it keeps watching the ledger: it counts new decisions, applies the rules, sends
    events when an alert begins or ends, and responds to drift as the rules' file says. You may
    start several: one works at a time.

    A MOMENT is a day (its beginning in UTC) or a time such as 2026-11-25T08:30:00Z.
    """
    expect_many_records()
    if every is not None:
        _only(context, "every", ("metrics_host", "metrics_port"))
        _watch(every, metrics_host, metrics_port)
        return
    if book is not None:
        _only(context, "book", ("model", "strict_doubts", "as_json"))
        _of_book(book, model, strict_doubts, as_json)
        return
    if strict_doubts:
        raise click.UsageError("--strict-doubts works only with --book")
    config = read_config(read_settings().rules)
    watched, window = _of_ledger(config, model, since, until, source)
    if as_json:
        _print_json(watched, window)
    else:
        with_outcome = 0 if watched.realised is None else watched.realised.loans
        _print(f"{window['since']} to {window['until']}", watched, with_outcome)


def _of_book(book: str, model: str | None, strict_doubts: bool, as_json: bool) -> None:
    """Measure a book and print its figures."""
    limits = read_config(read_settings().rules).limits
    bundle = bundle_of(model)
    with progress() as show:
        watched = monitor_book(open_book(book), bundle, limits, partial(show, f"reading {book}"))
    if watched is None:
        raise CommandError(
            f"{book}: has no loan that can be scored; `peerloan check` names what is wrong"
        )
    if strict_doubts:
        watched.doubts.refuse("no figure was printed")
    note_lines(watched.doubts)
    figures, outcomes = watched.figures, watched.outcomes
    if as_json:
        window = {"book": book, "loans": figures.loans, "rejected": figures.rejected}
        counts = {"outcomes": outcomes and outcomes.to_json()}
        _print_json(figures, window, counts | watched.doubts.to_json())
        return
    _print(book, figures, None if outcomes is None else outcomes.known)
    for line in [] if outcomes is None else outcomes.lines():
        note(f"note: {line}")


def _print_json(
    watched: WindowMetrics, window: dict[str, Any], more: dict[str, Any] | None = None
) -> None:
    figures = {"model": watched.version, "window": window} | figures_json(watched)
    print_json(figures | {"notes": watched.notes} | (more or {}))


def _only(context: click.Context, name: str, others: tuple[str, ...]) -> None:
    """Raise UsageError if other options were given than those that go with this one."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is click.core.ParameterSource.COMMANDLINE and parameter.name not in (
            name,
            *others,
        ):
            raise click.UsageError(f"{parameter.opts[0]} can't be used with --{name}")


def _of_ledger(
    config: MonitoringConfig,
    model: str | None,
    since: int | None,
    until: int | None,
    source: str | None,
) -> tuple[WindowMetrics, dict[str, Any]]:
    """Count new decisions, then return a version's figures in a window, and the window."""
    last = -(-(until or now_ms()) // HOUR_MS)
    first = last - config.window_days * 24 if since is None else since // HOUR_MS
    if first >= last:
        raise click.UsageError("--until: expected a moment after --since")
    bundle = bundle_of(model)
    database = ledger_database()
    database.check()
    with countable(database) as counting:
        _count(counting)
        with counting.reading() as connection:
            versions = VersionCache(connection, store())
            window = Window(first, last, None if source is None else [source])
            early = EarlyOutcomes(first, last).read(connection, versions)
            counts = read_window(connection, versions, window, early)
    span = window_json(first, last)
    for number, own in counts.items():
        if versions.known[number].version == bundle.version:
            watched = window_figures(versions, number, own, config.limits)
            if watched is not None:
                return watched, span | {"loans": watched.loans}
    raise CommandError(
        f"{bundle.version} decided on no loan from {span['since']} to {span['until']}"
    )


def _count(database: Database) -> None:
    """Count new decisions and outcomes, and note what is left out."""
    try:
        database.expect_writable()
        with progress() as show:
            new = count_new(database, store(), partial(show, "counting decisions"))
        count_outcomes(database, store(), new)
    except (CountedElsewhere, LedgerReadOnly) as error:
        note(f"note: {error}: the newest decisions may be missing here")
        return
    for version, why in new.missing.items():
        note(f"note: left out decisions by {version}: {why}")
    if new.unreadable:
        note(f"note: left out {plural(new.unreadable, 'decision')} that can't be read")


def _watch(every: float, host: str, port: int | None) -> None:
    """Watch the ledger until a signal ends the process."""
    # Imported here: figures of a book need neither the server nor the training libraries.
    from peerloan.web.server.bind_address import find_address
    from peerloan.worker.prometheus import Metrics
    from peerloan.worker.scheduler import Schedule

    if port is not None:
        address = find_address(host, port, "peerloan monitor --every …", prefix="--metrics-")
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr
    )
    config = read_config(read_settings().rules)
    database = ledger_database()
    database.ready()
    metrics = Metrics(database, every)
    if port is not None:
        metrics.serve(address, port)
    logging.info(
        "watching %s every %.0f minutes; rules: %s; events go to: %s; response to drift: %s",
        *(database, every / 60, read_settings().rules or "the defaults"),
        *(", ".join(config.tell.channels) or "nobody", config.on_drift),
    )
    Schedule(database, store(), config, every, metrics).run()


def _print(title: str, watched: WindowMetrics, known: int | None) -> None:
    """Print figures. `known` counts the loans with a known outcome; None: there is no label."""
    for line in watched.notes:
        note(f"note: {line}")
    outcomes = "" if known is None else f", {known:,} with a known outcome"
    click.echo(f"{title}: {plural(watched.loans, 'loan')} by {watched.version}{outcomes}")
    if watched.rejected:
        verb = "is" if watched.rejected == 1 else "are"
        click.echo(f"{plural(watched.rejected, 'row')} could not be scored and {verb} left out")
    print_table(
        (
            "feature",
            "PSI",
            "bias-corrected 95 %",
            "missing",
            "in training",
            "unseen levels",
        ),
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
        click.echo(f"late loans, as a ratio to those expected: {_shown(watched.calibration.ratio)}")
    for challenger in watched.challengers:
        realised, auc = challenger.realised, challenger.realised.auc
        click.echo(
            f"the challenger {challenger.version} on {plural(realised.loans, 'loan')}: "
            f"AUC {_shown(auc)}, Brier score {realised.brier:.4f}"
        )
    for firing in watched.firing:
        click.echo(
            f"{firing.level}: {firing.rule} of {firing.about}: {firing.value:.3f}, "
            f"the limit is {firing.limit:.3f}"
        )
    if not watched.firing:
        click.echo("no alert: every figure is within its limits")


def _row(drift: Drift) -> tuple[str, ...]:
    low, high = drift.psi.interval()
    return (
        *(drift.name, f"{drift.psi.value:.3f}", f"{low:.3f} to {high:.3f}"),
        *(f"{drift.missing.value:.1%}", f"{drift.reference_missing:.1%}"),
        ", ".join(f"{value} ({loans:,})" for value, loans in drift.outside_reference[:3]),
    )


def _shown(figure: Estimate | None) -> str:
    return "–" if figure is None else f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
