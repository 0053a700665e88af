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
    expect_many_records,
    load_bundle,
    note,
    note_lines,
    open_store,
    print_json,
    print_table,
    progress,
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
    "--every", type=_Interval(), help="Keep monitoring the ledger at this interval: 30m, 1h, 1d."
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

    Shows how the loans differ from the training loans, and the version's performance: estimated
    from its probabilities, and realised for loans with a known outcome. Measures the ledger's
    decisions of the last days (whole hours), or a book.

    With --every it keeps monitoring the ledger: it counts new decisions, evaluates the rules, sends
    events when an alert begins or ends, and responds to drift as the rules file says. You may
    start several processes; one works at a time.

    A MOMENT is a day (its beginning in UTC) or a time such as 2026-11-25T08:30:00Z.
    """
    expect_many_records()
    if every is not None:
        _refuse_other_options(context, "every", ("metrics_host", "metrics_port"))
        _keep_monitoring(every, metrics_host, metrics_port)
        return
    if book is not None:
        _refuse_other_options(context, "book", ("model", "strict_doubts", "as_json"))
        _monitor_book(book, model, strict_doubts, as_json)
        return
    if strict_doubts:
        raise click.UsageError("--strict-doubts works only with --book")
    config = read_config(read_settings().rules)
    metrics, window = _ledger_figures(config, model, since, until, source)
    if as_json:
        _print_json(metrics, window)
    else:
        with_outcome = 0 if metrics.realised is None else metrics.realised.loans
        _print(f"{window['since']} to {window['until']}", metrics, with_outcome)


def _monitor_book(book: str, model: str | None, strict_doubts: bool, as_json: bool) -> None:
    """Measure a book and print its figures."""
    limits = read_config(read_settings().rules).limits
    bundle = load_bundle(model)
    with progress() as show:
        monitored = monitor_book(open_book(book), bundle, limits, partial(show, f"reading {book}"))
    if monitored is None:
        raise CommandError(
            f"{book}: has no loan that can be scored; `peerloan check` lists the problems"
        )
    if strict_doubts:
        monitored.doubts.refuse("no figure was printed")
    note_lines(monitored.doubts)
    figures, outcomes = monitored.figures, monitored.outcomes
    if as_json:
        window = {"book": book, "loans": figures.loans, "rejected": figures.rejected}
        counts = {"outcomes": outcomes and outcomes.to_json()}
        _print_json(figures, window, counts | monitored.doubts.to_json())
        return
    _print(book, figures, None if outcomes is None else outcomes.known)
    for line in [] if outcomes is None else outcomes.lines():
        note(f"note: {line}")


def _print_json(
    metrics: WindowMetrics, window: dict[str, Any], more: dict[str, Any] | None = None
) -> None:
    figures = {"model": metrics.version, "window": window} | figures_json(metrics)
    print_json(figures | {"notes": metrics.notes} | (more or {}))


def _refuse_other_options(context: click.Context, name: str, others: tuple[str, ...]) -> None:
    """Raise UsageError if an option is given that can't be used with this one."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is click.core.ParameterSource.COMMANDLINE and parameter.name not in (
            name,
            *others,
        ):
            raise click.UsageError(f"{parameter.opts[0]} can't be used with --{name}")


def _ledger_figures(
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
    bundle = load_bundle(model)
    database = ledger_database()
    database.check()
    with countable(database) as counting:
        _count(counting)
        with counting.reading() as connection:
            versions = VersionCache(connection, open_store())
            window = Window(first, last, None if source is None else [source])
            early = EarlyOutcomes(first, last).read(connection, versions)
            counts = read_window(connection, versions, window, early)
    span = window_json(first, last)
    for number, own in counts.items():
        if versions.known[number].version == bundle.version:
            metrics = window_figures(versions, number, own, config.limits)
            if metrics is not None:
                return metrics, span | {"loans": metrics.loans}
    raise CommandError(
        f"{bundle.version} decided on no loan from {span['since']} to {span['until']}"
    )


def _count(database: Database) -> None:
    """Count new decisions and outcomes, and note what is left out."""
    try:
        database.expect_writable()
        with progress() as show:
            new = count_new(database, open_store(), partial(show, "counting decisions"))
        count_outcomes(database, open_store(), new)
    except (CountedElsewhere, LedgerReadOnly) as error:
        note(f"note: {error}: the newest decisions may be missing in these figures")
        return
    for version, why in new.missing.items():
        note(f"note: left out decisions by {version}: {why}")
    if new.unreadable:
        note(f"note: left out {plural(new.unreadable, 'decision')} that can't be read")


def _keep_monitoring(every: float, host: str, port: int | None) -> None:
    """Monitor the ledger until a signal ends the process."""
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
    database.prepare()
    metrics = Metrics(database, every)
    if port is not None:
        metrics.serve(address, port)
    logging.info(
        "monitoring %s every %s; rules: %s; events to: %s; response to drift: %s",
        database,
        plural(round(every / 60), "minute"),
        read_settings().rules or "the defaults",
        ", ".join(config.tell.channels) or "nobody",
        config.on_drift,
    )
    Schedule(database, open_store(), config, every, metrics).run()


def _print(title: str, metrics: WindowMetrics, known: int | None) -> None:
    """Print figures. `known` counts the loans with a known outcome; None: there is no label."""
    for line in metrics.notes:
        note(f"note: {line}")
    outcomes = "" if known is None else f", {known:,} with a known outcome"
    click.echo(f"{title}: {plural(metrics.loans, 'loan')} by {metrics.version}{outcomes}")
    if metrics.rejected:
        verb = "is" if metrics.rejected == 1 else "are"
        click.echo(f"{plural(metrics.rejected, 'row')} could not be scored and {verb} left out")
    print_table(
        (
            "feature",
            "PSI",
            "bias-corrected 95 %",
            "missing",
            "in training",
            "unseen levels",
        ),
        [_row(each) for each in (*metrics.features, metrics.score)],
    )
    estimated, realised = metrics.estimated, metrics.realised
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
    if metrics.calibration is not None:
        click.echo(
            f"late loans divided by expected late loans: {_shown(metrics.calibration.ratio)}"
        )
    for challenger in metrics.challengers:
        realised, auc = challenger.realised, challenger.realised.auc
        click.echo(
            f"the challenger {challenger.version} on {plural(realised.loans, 'loan')}: "
            f"AUC {_shown(auc)}, Brier score {realised.brier:.4f}"
        )
    for firing in metrics.firing:
        click.echo(
            f"{firing.level}: {firing.rule} of {firing.about}: {firing.value:.3f}, "
            f"the limit is {firing.limit:.3f}"
        )
    if not metrics.firing:
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
