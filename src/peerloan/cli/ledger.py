"""Commands over the ledger: upgrade, verify, purge, export."""

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
    No,
    note,
    print_json,
    progress,
    store,
)
from peerloan.cli.ledger_options import ledger_database
from peerloan.clock import moment
from peerloan.database import Database
from peerloan.ledger import Seal
from peerloan.ledger.audit.verify import Report
from peerloan.ledger.audit.verify import verify as verify_ledger
from peerloan.ledger.retention import count_before
from peerloan.ledger.retention import purge as purge_values
from peerloan.loan.text import counted
from peerloan.registry.alias_state import current_user
from peerloan.settings import read_settings

_AGE = re.compile(r"([0-9]{1,6})([dmy])")


class _Age(click.ParamType[datetime]):
    """An age, as the moment that long ago."""

    name = "age"

    def convert(self, value: object, param: object, ctx: object) -> datetime:  # noqa: ARG002
        if isinstance(value, datetime):
            return value
        found = _AGE.fullmatch(str(value))
        if found is None or int(found[1]) == 0:
            raise click.BadParameter(
                f"expected days, months or years, as 90d, 18m or 7y, given {value!r}"
            )
        try:
            return _ago(int(found[1]), found[2])
        except (ValueError, OverflowError):
            raise click.BadParameter(f"{value}: that long ago there was no calendar") from None


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
    """Every decision that was made: the database that keeps them."""


def _checked() -> tuple[Database, Seal]:
    """The ledger, which must be there, and its seal."""
    database = ledger_database()
    database.check()
    return database, Seal.existing(read_settings().seal_folder)


@ledger.command()
def upgrade() -> None:
    """Make the tables, or bring them to this release's; again, it changes nothing."""
    database = ledger_database()
    done = database.upgrade()
    database.check()
    applied = f"migrations applied: {', '.join(map(str, done))}" if done else "nothing to do"
    note(f"{database}: {applied}")


@ledger.command()
@JSON
def verify(as_json: bool) -> None:
    """Prove that every record is there as it was written, or name those that are not.

    Services may go on meanwhile. The exit code is 1 if anything was edited, removed, added or cut
    off.
    """
    database, seal = _checked()
    with progress() as show:
        show_check = partial(show, f"checking {database}")
        report = verify_ledger(database, seal, show_check)
        show_check(1.0)
    found = report.findings.totals
    if as_json:
        print_json(
            {
                "records": report.records,
                "chains": report.chains,
                "erased": report.erased,
                "totals": dict(found),
                "findings": msgspec.to_builtins(report.findings.shown()),
            }
        )
    else:
        _print_report(report)
    if found:
        raise No(f"{database}: not as it was written: {_counts(report)}")


def _print_report(report: Report) -> None:
    shown = report.findings.shown()
    for kind in dict.fromkeys(each.kind for each in shown):
        told = [each for each in shown if each.kind == kind]
        for each in told:
            click.echo(f"{kind}: {each.what}")
        if more := report.findings.totals[kind] - len(told):
            click.echo(f"{kind}: and {more:,} more")
    purged = f", {report.erased:,} of them purged" if report.erased else ""
    well = "" if shown else ": all as they were written"
    records = counted(report.records, "record")
    click.echo(f"{records} in {counted(report.chains, 'chain')}{purged}{well}")


def _counts(report: Report) -> str:
    return ", ".join(f"{count:,} × {kind}" for kind, count in report.findings.totals.items())


@ledger.command()
@click.option(
    "--older-than",
    "before",
    type=_Age(),
    required=True,
    metavar="AGE",
    help="Days, months or years: 90d, 18m, 7y.",
)
@click.option("--yes", is_flag=True, help="Don't ask.")
def purge(before: datetime, yes: bool) -> None:
    """Erase what was asked and answered in old decisions; counts of them stay.

    Cut off, it may be run again: nothing is counted twice.
    """
    database, seal = _checked()
    total = count_before(database, _ms(before))
    old = f"from before {moment(_ms(before))}"
    if not total:
        note(f"{database}: no decisions {old}")
        return
    question = f"{database}: {counted(total, 'decision')} {old} will be erased for ever"
    if not yes:
        if not sys.stderr.isatty():
            raise click.UsageError(f"{question}; --yes says that this is meant")
        click.confirm(f"{question}. Go on?", abort=True, err=True)
    with progress() as show:

        def show_erased(erased: int) -> None:
            show(f"erasing decisions {old}", min(erased / total, 1.0))

        erased = purge_values(database, seal, _ms(before), current_user(), show_erased)
    note(f"{database}: erased {counted(erased, 'decision')} {old}")


_DATE = click.DateTime(("%Y-%m-%d",))


@ledger.command()
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help=".csv, .csv.gz or .parquet: the ending chooses.",
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
    """Write decisions as a table, a row each, with their outcomes."""
    # Parquet's library is not there where only serving is installed.
    from peerloan.ledger.export import export as write_table

    database = ledger_database()
    database.check()
    with progress() as show:
        show_rows = partial(show, f"exporting {database}")
        done = write_table(
            database,
            store(),
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
            f"{counted(count, 'decision')} stand in the column `inputs` alone"
        )
    decisions = counted(done.rows, "decision")
    click.echo(f"{out}: {decisions}, {done.outcomes:,} of them with an outcome")
