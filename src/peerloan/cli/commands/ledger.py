"""`peerloan ledger`: upgrade, verify, purge and export the ledger."""

from __future__ import annotations

import calendar
import re
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import click
import msgspec

from peerloan.cli.console import (
    JSON,
    OVERWRITE,
    SPREADSHEET_SAFE,
    CommandError,
    note,
    open_store,
    print_json,
    progress,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.clock import moment
from peerloan.database import Database
from peerloan.formatting import plural
from peerloan.ledger import Seal
from peerloan.ledger.audit.verify import AuditReport
from peerloan.ledger.audit.verify import verify as verify_ledger
from peerloan.ledger.retention import count_unpurged
from peerloan.ledger.retention import purge as purge_values
from peerloan.registry.alias_state import current_user
from peerloan.settings import read_settings

_AGE = re.compile(r"([0-9]{1,6})([dmy])")


class _Age(click.ParamType[datetime]):
    """Parses an age, such as 90d, into the moment that long ago."""

    name = "age"

    def convert(self, value: object, param: object, ctx: object) -> datetime:  # noqa: ARG002
        if isinstance(value, datetime):
            return value
        match = _AGE.fullmatch(str(value))
        if match is None or int(match[1]) == 0:
            raise click.BadParameter(
                f"expected days, months or years, such as 90d, 18m or 7y, given {value!r}"
            )
        try:
            return _ago(int(match[1]), match[2])
        except (ValueError, OverflowError):
            raise click.BadParameter(f"{value}: expected an age within the calendar") from None


def _ago(count: int, unit: str) -> datetime:
    now = datetime.now(UTC)
    if unit == "d":
        return now - timedelta(days=count)
    months = now.year * 12 + now.month - 1 - count * (12 if unit == "y" else 1)
    year, month = months // 12, months % 12 + 1
    return now.replace(year, month, min(now.day, calendar.monthrange(year, month)[1]))


def _ms(when: datetime) -> int:
    return int(when.timestamp() * 1000)


@click.group()
def ledger() -> None:
    """Maintain the ledger, which stores every decision."""


def _checked() -> tuple[Database, Seal]:
    """Open the ledger, which must exist, and its seal."""
    database = ledger_database()
    database.check()
    return database, Seal.existing(read_settings().seal_folder)


@ledger.command()
def upgrade() -> None:
    """Create the tables, or bring them to this release.

    Run it before a new release serves. Running it again changes nothing.
    """
    database = ledger_database()
    done = database.upgrade()
    database.check()
    applied = f"migrations applied: {', '.join(map(str, done))}" if done else "nothing to do"
    note(f"{database}: {applied}")


@ledger.command()
@JSON
def verify(as_json: bool) -> None:
    """Check that every record is as it was written.

    Lists records that were edited, removed, added or cut off, and missing chains and heads: the
    first 20 of each kind. Services may run meanwhile. The exit code is 1 if anything is found.
    """
    database, seal = _checked()
    with progress() as show:
        show_check = partial(show, f"checking {database}")
        report = verify_ledger(database, seal, show_check)
        show_check(1.0)
    totals = report.findings.totals
    if as_json:
        print_json(
            {
                "records": report.records,
                "chains": report.chains,
                "erased": report.erased,
                "totals": dict(totals),
                "findings": msgspec.to_builtins(report.findings.shown()),
            }
        )
    else:
        _print_report(report)
    if totals:
        raise CommandError(
            f"{database}: the records differ from what was written: {_counts(report)}"
        )


def _print_report(report: AuditReport) -> None:
    shown = report.findings.shown()
    for kind in dict.fromkeys(finding.kind for finding in shown):
        of_kind = [finding for finding in shown if finding.kind == kind]
        for finding in of_kind:
            click.echo(f"{kind}: {finding.what}")
        if not_shown := report.findings.totals[kind] - len(of_kind):
            click.echo(f"{kind}: and {not_shown:,} more")
    purged = f", {report.erased:,} of them purged" if report.erased else ""
    well = "" if shown else ": all as they were written"
    records = plural(report.records, "record")
    click.echo(f"{records} in {plural(report.chains, 'chain')}{purged}{well}")


def _counts(report: AuditReport) -> str:
    return ", ".join(f"{count:,} × {kind}" for kind, count in report.findings.totals.items())


@ledger.command()
@click.option(
    "--older-than",
    "before",
    type=_Age(),
    required=True,
    metavar="AGE",
    help="Minimum age in days, months or years: 90d, 18m, 7y.",
)
@click.option("--yes", is_flag=True, help="Don't ask for confirmation.")
def purge(before: datetime, yes: bool) -> None:
    """Erase the values of old decisions. Their counts stay.

    Asks for confirmation. If it is interrupted, run it again: nothing is counted twice.
    """
    database, seal = _checked()
    total = count_unpurged(database, _ms(before))
    old = f"made before {moment(_ms(before))}"
    if not total:
        note(f"{database}: no decisions {old}")
        return
    question = f"{database}: {plural(total, 'decision')} {old} will be erased for good"
    if not yes:
        if not sys.stderr.isatty():
            raise click.UsageError(f"{question}; confirm with --yes")
        click.confirm(f"{question}. Continue?", abort=True, err=True)
    with progress() as show:

        def show_erased(erased: int) -> None:
            show(f"erasing decisions {old}", min(erased / total, 1.0))

        erased = purge_values(database, seal, _ms(before), current_user(), show_erased)
    note(f"{database}: erased {plural(erased, 'decision')} {old}")


_DATE = click.DateTime(("%Y-%m-%d",))


@ledger.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: .csv, .csv.gz or .parquet.",
)
@click.option("--since", type=_DATE, metavar="DATE", help="Decisions from this day on (UTC).")
@click.option("--until", type=_DATE, metavar="DATE", help="Decisions before this day (UTC).")
@OVERWRITE
@SPREADSHEET_SAFE
def export(
    out: Path,
    since: datetime | None,
    until: datetime | None,
    overwrite: bool,
    spreadsheet_safe: bool,
) -> None:
    """Write a table of decisions with their outcomes, one row for each decision."""
    # Imported here: an installation that only serves has no Parquet library.
    from peerloan.ledger.export import export as write_table

    database = ledger_database()
    database.check()
    with progress() as show:
        show_rows = partial(show, f"exporting {database}")
        done = write_table(
            database,
            open_store(),
            out,
            since_ms=0 if since is None else _ms(since.replace(tzinfo=UTC)),
            until_ms=None if until is None else _ms(until.replace(tzinfo=UTC)),
            overwrite=overwrite,
            spreadsheet_safe=spreadsheet_safe,
            progress=show_rows,
        )
        show_rows(1.0)
    for version, count in done.unknown.items():
        note(
            f"note: {version} is not in the store: the inputs of its "
            f"{plural(count, 'decision')} are in the column `inputs` only"
        )
    decisions = plural(done.rows, "decision")
    click.echo(f"{out}: {decisions}, {done.outcomes:,} of them with an outcome")
