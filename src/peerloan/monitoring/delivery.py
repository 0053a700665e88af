"""Telling events: to the log, a webhook, a command; each at least once, until it is heard."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import random
import subprocess
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Any, NamedTuple

from sqlalchemy import select, update

from peerloan.ledger import Database
from peerloan.ledger.schema import deliveries, events
from peerloan.monitoring.plan import PlanError, Tell, Webhook

log = logging.getLogger(__name__)
_WEBHOOK_SECONDS = 10
_COMMAND_SECONDS = 60
_FIRST_WAIT_MS, _LONGEST_WAIT_MS = 30_000, 3_600_000
# From the event on; a try after this time is the last one.
_GIVEN_UP_MS = 7 * 86_400_000
# Of one channel in one turn.
_AT_ONCE = 1_000
_DROPPED = "dropped: nobody is to be told this way any more"


class NotTold(Exception):
    """Why an event was not heard; it holds no secret."""


class _Due(NamedTuple):
    number: int
    id: str
    time_ms: int
    type: str
    event: str
    attempts: int


def deliver_due(database: Database, tell: Tell, now_ms: int) -> int:
    """Tell what is due now (milliseconds since 1970), and keep after each try what became of it.

    Returns how many were told. Who stops in between tells one event again, with the same id. Within
    a channel events are told in the order in which they fell due; the first that fails ends the
    channel's turn, and waits longer than those behind it: a receiver that is away costs one try,
    and an event that it never takes holds up no other. Raises LedgerUnavailable.
    """
    began = time.monotonic()
    _drop(database, tell.channels)
    told = 0
    for channel in tell.channels:
        for due in _due(database, channel, now_ms):
            now = now_ms + int((time.monotonic() - began) * 1000)
            try:
                _tell(tell, channel, due, now)
            except NotTold as error:
                _keep_fault(database, channel, due, now, str(error))
                break
            _keep(database, channel, due, fault=None, next_ms=None)
            told += 1
    return told


def _drop(database: Database, channels: list[str]) -> None:
    """Give up what waits for channels that are none any more."""
    rows = deliveries.c.next_ms.is_not(None) & deliveries.c.channel.not_in(channels)
    with database.reading() as connection:
        names = list(connection.execute(select(deliveries.c.channel).where(rows)).scalars())
    if names:
        with database.writing() as connection:
            connection.execute(update(deliveries).where(rows).values(next_ms=None, fault=_DROPPED))
        log.warning(
            "%d events that were to be told by %s are dropped: the rules name it no more",
            *(len(names), " and ".join(sorted(set(names)))),
        )


def _due(database: Database, channel: str, now_ms: int) -> list[_Due]:
    rows = (
        select(
            *(events.c.number, events.c.id, events.c.time_ms, events.c.type, events.c.event),
            deliveries.c.attempts,
        )
        .join(events, events.c.number == deliveries.c.event)
        .select_from(deliveries)
        .where(deliveries.c.channel == channel, deliveries.c.next_ms <= now_ms)
        .order_by(deliveries.c.next_ms, deliveries.c.event)
        .limit(_AT_ONCE)
    )
    with database.reading() as connection:
        return [_Due(*row) for row in connection.execute(rows)]


def _tell(tell: Tell, channel: str, due: _Due, now_ms: int) -> None:
    """Tell one event; raises NotTold."""
    if channel == "webhook" and tell.webhook is not None:
        _post(tell.webhook, due, now_ms // 1000)
    elif channel == "command" and tell.command is not None:
        _run(tell.command, due.event)
    else:
        # Any lower, and a program that has set nothing up would not show it.
        log.warning("event %s %s: %s", due.type, due.id, due.event)


def _keep_fault(database: Database, channel: str, due: _Due, now_ms: int, fault: str) -> None:
    if now_ms - due.time_ms >= _GIVEN_UP_MS:
        log.error("event %s is given up: %s: %s", due.id, channel, fault)
        _keep(database, channel, due, fault=f"given up: {fault}", next_ms=None)
        return
    log.warning("event %s is to be told again: %s: %s", due.id, channel, fault)
    wait = min(_FIRST_WAIT_MS * 2 ** min(due.attempts, 20), _LONGEST_WAIT_MS)
    # Who failed together should not come back together; never later than the longest wait.
    wait = int(wait * random.uniform(0.75, 1))  # noqa: S311
    _keep(database, channel, due, fault=fault, next_ms=now_ms + wait)


def _keep(
    database: Database, channel: str, due: _Due, *, fault: str | None, next_ms: int | None
) -> None:
    one = (deliveries.c.event == due.number) & (deliveries.c.channel == channel)
    became = {"attempts": due.attempts + 1, "fault": fault, "next_ms": next_ms}
    with database.writing() as connection:
        connection.execute(update(deliveries).where(one).values(became))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever is named is told, and nobody whom he names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """A redirect is answered as what it is: not heard."""


def signature(secret: bytes, event_id: str, timestamp: int, body: bytes) -> str:
    """What shows a receiver who sent an event: by Standard Webhooks, over id, seconds and body."""
    signed = b"%s.%d.%s" % (event_id.encode(), timestamp, body)
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _post(webhook: Webhook, due: _Due, timestamp: int) -> None:
    """Send an event to a webhook; raises NotTold."""
    body = due.event.encode()
    try:
        signed = signature(webhook.secret(), due.id, timestamp, body)
        heads = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": due.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signed,
        }
        asked = urllib.request.Request(webhook.url, body, heads, method="POST")  # noqa: S310
        opener = urllib.request.build_opener(_NoRedirect)
        # What is answered beyond the status is not read.
        opener.open(asked, timeout=_WEBHOOK_SECONDS).close()
    except PlanError as error:
        raise NotTold(str(error)) from None
    except urllib.error.HTTPError as error:
        error.close()
        raise NotTold(f"it answered {error.code}") from None
    except (OSError, HTTPException, ValueError) as error:
        raise NotTold(_fault(error)) from None


def _fault(error: Exception) -> str:
    """Why nothing was answered; an error's own words could hold the URL, and so a password."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"no answer within {_WEBHOOK_SECONDS} s"
    return getattr(reason, "strerror", None) or type(reason).__name__


def _run(command: tuple[str, ...], event: str) -> None:
    """Run a command with an event as its input; raises NotTold."""
    try:
        done = subprocess.run(  # noqa: S603
            command,
            input=event.encode(),
            stdout=subprocess.DEVNULL,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotTold(f"it did not end within {_COMMAND_SECONDS} s") from None
    except (OSError, ValueError) as error:
        raise NotTold(f"it can't be run: {_fault(error)}") from None
    if done.returncode:
        raise NotTold(f"its exit code was {done.returncode}")
