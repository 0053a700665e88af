"""Commands over events: list, acknowledge."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from peerloan.cli.console import JSON, note, print_json, print_table
from peerloan.cli.opening import ledger_database
from peerloan.ledger.moments import EXPECTED, moment, parse_moment
from peerloan.model.store import current_user
from peerloan.monitoring.events import Event, Wanted, page
from peerloan.monitoring.events import acknowledge as acknowledge_event

_SHOWN = 1_000


@click.group()
def events() -> None:
    """What watching the model had to tell, whom it was told, and who took note."""


def _milliseconds(_context: object, _option: object, value: str | None) -> int | None:
    try:
        return None if value is None else parse_moment(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected {EXPECTED}, given {value!r}") from None


@events.command("list")
@click.option("--open", "is_open", is_flag=True, help="Only those that nobody has taken note of.")
@click.option(
    "--since", callback=_milliseconds, metavar="MOMENT", help="Events from this moment on."
)
@JSON
def list_events(is_open: bool, since: int | None, as_json: bool) -> None:
    """The newest 1,000 events, the newest first."""
    database = ledger_database()
    database.check()
    found = page(database, Wanted(since, is_open), _SHOWN)
    if as_json:
        print_json([_described(each) for each in found])
    elif found:
        print_table(
            ("time", "type", "version", "id", "acknowledged", "told"), list(map(_row, found))
        )
    else:
        note("no events")


def _described(event: Event) -> dict[str, Any]:
    noted = event.acknowledged
    return {
        "event": msgspec.json.decode(event.event),
        "acknowledged": noted
        and {"time": moment(noted.time_ms), "who": noted.who, "why": noted.why},
        "told": [
            {"channel": each.channel, "state": each.state, "fault": each.fault}
            for each in event.told
        ],
    }


def _row(event: Event) -> tuple[str, ...]:
    told = [
        f"{each.channel}: {each.state}{f' ({each.fault})' if each.fault else ''}"
        for each in event.told
    ]
    noted = event.acknowledged
    return (
        moment(event.time_ms),
        event.type.removeprefix("org.peerloan."),
        str(msgspec.json.decode(event.event)["subject"]),
        event.id,
        "" if noted is None else f"{noted.who}: {noted.why}",
        ", ".join(told),
    )


@events.command()
@click.argument("event_id", metavar="ID")
@click.option("--why", required=True, help="What you found, or did about it.")
def acknowledge(event_id: str, why: str) -> None:
    """Take note of an event, in your name; the first who does is kept."""
    database = ledger_database()
    database.check()
    done = acknowledge_event(database, event_id, current_user(), why)
    note(f"acknowledged by {done.who}: {event_id}")
