"""Commands over events: list, acknowledge."""

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
    is_why,
    page,
)
from peerloan.monitoring.alerts.events import acknowledge as take_note
from peerloan.registry.alias_state import current_user

_WORDS = {
    BEGAN: "an alarm begins",
    ROSE: "an alarm grows louder",
    ENDED: "an alarm is over",
    MADE: "a challenger was made",
    REFUSED: "the answer was refused",
    PROMOTED: "a version was promoted",
}


@click.group()
def events() -> None:
    """What the rules have told: alarms, and the answers to them."""


def _database() -> Database:
    database = ledger_database()
    database.check()
    return database


@events.command("list")
@click.option("--open", "only_open", is_flag=True, help="Those that nobody has taken note of.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000),
    default=100,
    show_default=True,
    help="So many at most.",
)
@JSON
def list_events(only_open: bool, limit: int, as_json: bool) -> None:
    """Events, the newest first."""
    found = page(_database(), limit, only_open=only_open)
    if as_json:
        print_json([_described(each) for each in found])
    elif found:
        columns = (
            "id",
            "time",
            "what happened",
            "model",
            "about",
            "value (limit)",
            "who took note",
        )
        print_table(columns, [_row(each) for each in found])
    else:
        note("no events")


@events.command()
@click.argument("event", metavar="ID")
@click.option("--why", required=True, help="What you found, or did about it.")
def acknowledge(event: str, why: str) -> None:
    """Say that you have taken note of an event; who did so first stands."""
    if not is_why(why):
        raise click.UsageError(f"--why: expected {WHY_EXPECTED}")
    who = current_user()
    take_note(_database(), event, who, why)
    note(f"{who} has taken note of {event}")


def _described(found: Event) -> dict[str, Any]:
    by = found.acknowledged
    return {
        "event": msgspec.json.decode(found.event),
        "acknowledged": by and {"who": by.who, "time": moment(by.time_ms), "why": by.why},
    }


def _row(found: Event) -> tuple[str, ...]:
    event = msgspec.json.decode(found.event)
    data = event["data"]
    what = _WORDS.get(event["type"], event["type"])
    if "rule" in data:
        about = f"{data['rule']} of {data['about']}"
        what += "" if event["type"] == ENDED else f" ({data['level']})"
    else:
        about = f"{data['answer']}: {data['reason']}"
    value = "" if data.get("value") is None else f"{data['value']:.3f} ({data['limit']:.3f})"
    by = found.acknowledged
    noted = "" if by is None else f"{by.who or 'somebody'}: {by.why}"
    return found.id, event["time"][:16] + "Z", what, event["subject"], about, value, noted
