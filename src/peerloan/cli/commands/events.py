"""`peerloan events`: list and acknowledge events."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from peerloan.cli.console import JSON, note, print_json, print_table
from peerloan.cli.ledger_options import ledger_database
from peerloan.clock import moment
from peerloan.database import Database
from peerloan.monitoring.alerts.events import (
    BEGAN,
    ENDED,
    MADE,
    PROMOTED,
    REFUSED,
    ROSE,
    WHY_EXPECTED,
    Event,
    event_page,
    is_reason,
)
from peerloan.monitoring.alerts.events import acknowledge as acknowledge_event
from peerloan.registry.alias_state import current_user

_WORDS = {
    BEGAN: "an alert began",
    ROSE: "an alert rose",
    ENDED: "an alert ended",
    MADE: "a challenger was made",
    REFUSED: "a challenger was refused",
    PROMOTED: "a version was promoted",
}


@click.group()
def events() -> None:
    """Show events of monitoring: alerts and responses to drift."""


def _database() -> Database:
    database = ledger_database()
    database.check()
    return database


@events.command("list")
@click.option("--open", "only_open", is_flag=True, help="Only events that nobody has acknowledged.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000),
    default=100,
    show_default=True,
    help="Largest number of events to list.",
)
@JSON
def list_events(only_open: bool, limit: int, as_json: bool) -> None:
    """List events, the newest first."""
    listed = event_page(_database(), limit, only_open=only_open)
    if as_json:
        print_json([_to_json(event) for event in listed])
    elif listed:
        columns = (
            "id",
            "time",
            "what happened",
            "model",
            "about",
            "value (limit)",
            "acknowledged by",
        )
        print_table(columns, [_row(event) for event in listed])
    else:
        note("no events")


@events.command()
@click.argument("event", metavar="ID")
@click.option("--why", required=True, help="What you found or did about it.")
def acknowledge(event: str, why: str) -> None:
    """Record that you have seen an event.

    ID is the event's, as `peerloan events list` shows it. Only the first
    acknowledgement is stored: the exit code is 1 if there is one already.
    """
    if not is_reason(why):
        raise click.UsageError(f"--why: expected {WHY_EXPECTED}")
    who = current_user()
    acknowledge_event(_database(), event, who, why)
    note(f"{event}: acknowledged by {who}")


def _to_json(event: Event) -> dict[str, Any]:
    by = event.acknowledged
    return {
        "event": msgspec.json.decode(event.event),
        "acknowledged": by and {"who": by.who, "time": moment(by.time_ms), "why": by.why},
    }


def _row(event: Event) -> tuple[str, ...]:
    content = msgspec.json.decode(event.event)
    data, kind = content["data"], content["type"]
    what = _WORDS.get(kind, kind)
    if "rule" in data:
        about = f"{data['rule']} of {data['about']}"
        what += "" if kind == ENDED else f" ({data['level']})"
    else:
        about = f"{data['answer']}: {data['reason']}"
    value = "" if data.get("value") is None else f"{data['value']:.3f} ({data['limit']:.3f})"
    by = event.acknowledged
    noted = "" if by is None else f"{by.who or 'somebody'}: {by.why}"
    return event.id, content["time"][:16] + "Z", what, content["subject"], about, value, noted
