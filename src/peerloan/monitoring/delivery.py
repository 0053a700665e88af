"""Telling events: to the log, a webhook and a command, each at least once.

An event is marked as told after it was; who is told twice knows it by its id. Each channel has its
events in the order in which they fell due, and its turn ends with the first that can't be told,
which waits longer than those behind it: a receiver that is away costs one try a turn, and an event
that it never takes holds up no other.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import random
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError

import msgspec
from sqlalchemy import select, update

from peerloan.ledger import Database
from peerloan.ledger.reports import DAY_MS
from peerloan.ledger.schema import deliveries, events
from peerloan.monitoring.plan import PlanError, Tell, Webhook

log = logging.getLogger(__name__)
_WEBHOOK_SECONDS, _COMMAND_SECONDS = 10, 60
# The first wait after a failure, the longest, and how long it is tried at all.
_FIRST_MS, _LONGEST_MS, _GIVEN_UP_MS = 30_000, 3_600_000, 7 * DAY_MS
# Structured: the whole event is one JSON object.
_MEDIA_TYPE = "application/cloudevents+json; charset=UTF-8"
# Of a round; the next one goes on.
_AT_ONCE = 500


class NotTold(Exception):
    """Why an event could not be told; nothing secret."""


def deliver_due(database: Database, tell: Tell, now_ms: int) -> None:
    """Tell what is due (`now_ms` in milliseconds since 1970); what fails is tried again later, for
    a week. Raises LedgerUnavailable.
    """
    channels: dict[str, Callable[[str, str], None]] = {"log": lambda _, event: _say(event)}
    if (webhook := tell.webhook) is not None:
        channels["webhook"] = lambda event_id, event: _post(webhook, event_id, event, now_ms)
    if (command := tell.command) is not None:
        channels["command"] = lambda _, event: _run(command, event)
    with database.reading() as connection:
        due = select(deliveries.c.channel).where(deliveries.c.next_ms <= now_ms).distinct()
        waiting = connection.execute(due).scalars().all()
    for channel in waiting:
        for row in _due(database, channel, now_ms):
            if channel not in channels:
                log.warning("%s: is told to the %s no longer", row.id, channel)
                _mark(database, row, next_ms=None, fault="no longer told")
            elif not _told(database, row, channels[channel], now_ms):
                break


def _due(database: Database, channel: str, now_ms: int) -> Sequence[Any]:
    rows = (
        select(
            *(deliveries.c.event, deliveries.c.channel, deliveries.c.attempts),
            *(events.c.id, events.c.time_ms, events.c.event.label("content")),
        )
        .join(events, events.c.number == deliveries.c.event)
        .where(deliveries.c.channel == channel, deliveries.c.next_ms <= now_ms)
        .order_by(deliveries.c.next_ms, deliveries.c.event)
        .limit(_AT_ONCE)
    )
    with database.reading() as connection:
        return connection.execute(rows).all()


def _told(database: Database, row: Any, tell: Callable[[str, str], None], now_ms: int) -> bool:
    """Tell an event, and mark what came of it."""
    try:
        tell(row.id, row.content)
    except NotTold as error:
        _put_off(database, row, now_ms, str(error))
        return False
    _mark(database, row, next_ms=None, attempts=row.attempts + 1, fault=None)
    return True


def _put_off(database: Database, row: Any, now_ms: int, fault: str) -> None:
    """Try an event again later, each time later; or give up."""
    if now_ms - row.time_ms > _GIVEN_UP_MS:
        log.error("%s: given up after a week, the %s: %s", row.id, row.channel, fault)
        _mark(database, row, next_ms=None, attempts=row.attempts + 1, fault=f"given up: {fault}")
        return
    wait = min(_FIRST_MS * 2 ** min(row.attempts, 20), _LONGEST_MS)
    # So that many who wait for the same receiver do not come back at once.
    wait = int(wait * random.uniform(0.8, 1.2))  # noqa: S311
    log.warning(
        "%s: could not be told to the %s, next in %d s: %s",
        row.id,
        row.channel,
        wait // 1000,
        fault,
    )
    _mark(database, row, next_ms=now_ms + wait, attempts=row.attempts + 1, fault=fault)


def _mark(database: Database, row: Any, **values: Any) -> None:
    with database.writing() as connection:
        key = {"event": row.event, "channel": row.channel}
        connection.execute(update(deliveries).filter_by(**key).values(**values))


def _say(event: str) -> None:
    found = msgspec.json.decode(event)
    data = msgspec.json.encode(found["data"]).decode()
    log.warning("event %s %s of %s: %s", found["id"], found["type"], found["subject"], data)


def signature(secret: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """What a receiver finds in `webhook-signature`: HMAC-SHA-256 over id, time and body, as the
    Standard Webhooks have it.
    """
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """What is signed for one address goes to no other."""


_opener = urllib.request.build_opener(_NoRedirect)


def _post(webhook: Webhook, event_id: str, event: str, now_ms: int) -> None:
    body, timestamp = event.encode(), str(now_ms // 1000)
    try:
        headers = {
            "Content-Type": _MEDIA_TYPE,
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(webhook.secret(), event_id, timestamp, body),
        }
        request = urllib.request.Request(webhook.url, body, headers, method="POST")  # noqa: S310  the plan allows http and https alone
        with _opener.open(request, timeout=_WEBHOOK_SECONDS) as answer:
            if not HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
                raise NotTold(f"answered {answer.status}")
    except PlanError as error:
        raise NotTold(str(error)) from None
    except HTTPError as error:
        error.close()
        raise NotTold(f"answered {error.code}") from None
    except URLError as error:
        raise NotTold(_reason(error.reason)) from None
    except (OSError, ValueError) as error:
        raise NotTold(_reason(error)) from None


def _run(command: tuple[str, ...], event: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603  the user's own, and no shell
            command,
            input=event.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotTold(f"{command[0]}: took longer than {_COMMAND_SECONDS} s") from None
    except OSError as error:
        raise NotTold(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise NotTold(": ".join([f"{command[0]}: exit code {done.returncode}", *said])[:300])


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
