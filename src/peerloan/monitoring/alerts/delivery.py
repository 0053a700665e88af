"""Delivers events to the channels: the log, a webhook and a command.

Delivery is at least once: an event is marked as delivered after it was sent, so it may come twice,
with the same id. A channel gets its events in the order in which they are due. Its turn ends at the
first failure, and the failed event is then due later than the events after it. So a receiver that
is down is tried once in a turn, and an event that it never accepts does not block others.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import logging
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError

import msgspec
from sqlalchemy import select, update

from peerloan.clock import DAY_MS
from peerloan.database import Database
from peerloan.database.tables import deliveries, events
from peerloan.errors import PeerLoanError
from peerloan.monitoring.config import Channels, MonitoringConfigError, Webhook

log = logging.getLogger(__name__)
# Time limits of a complete call, even if it makes progress.
WEBHOOK_SECONDS, COMMAND_SECONDS = 10.0, 60.0
# Limit of what is read from a command's standard error.
_MAX_STDERR_BYTES = 4_096
# First and longest delay after a failure, and the age at which an event is given up.
_FIRST_MS, _LONGEST_MS, _GIVEN_UP_MS = 30_000, 3_600_000, 7 * DAY_MS
# CloudEvents in structured mode: the complete event is one JSON object.
_MEDIA_TYPE = "application/cloudevents+json; charset=UTF-8"
# Limits of a channel in one turn: events and time. The next turn continues.
_AT_ONCE, _TURN_SECONDS = 500, 60.0


class DeliveryFailed(PeerLoanError):
    """An event could not be delivered. The message contains no secrets."""


def deliver_due(
    database: Database,
    receivers: Channels,
    now_ms: int,
    before_each: Callable[[], None] = lambda: None,
) -> None:
    """Deliver the events that are due at `now_ms` (milliseconds since 1970).

    A failed delivery is tried again later, for a week. `before_each` is called before each event,
    and may raise an error to end the turn. Raises LedgerUnavailable.
    """
    channels: dict[str, Callable[[str, str], None]] = {"log": lambda _, event: _log(event)}
    if (webhook := receivers.webhook) is not None:
        channels["webhook"] = lambda event_id, event: _post(webhook, event_id, event, now_ms)
    if (command := receivers.command) is not None:
        channels["command"] = lambda _, event: _run(command, event)
    with database.reading() as connection:
        due = select(deliveries.c.channel).where(deliveries.c.next_ms <= now_ms).distinct()
        due_channels = connection.execute(due).scalars().all()
    for channel in due_channels:
        deadline = time.monotonic() + _TURN_SECONDS
        for row in _due(database, channel, now_ms):
            before_each()
            if channel not in channels:
                log.warning(
                    "%s: not delivered, because the config has no %s any more", row.id, channel
                )
                _mark(database, row, next_ms=None, fault="the config has no such channel any more")
            elif (
                not _deliver(database, row, channels[channel], now_ms)
                or time.monotonic() > deadline
            ):
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


def _deliver(database: Database, row: Any, send: Callable[[str, str], None], now_ms: int) -> bool:
    """Send an event and store the result. Returns whether it was delivered."""
    try:
        send(row.id, row.content)
    except DeliveryFailed as error:
        _postpone(database, row, now_ms, str(error))
        return False
    _mark(database, row, next_ms=None, attempts=row.attempts + 1, fault=None)
    return True


def _postpone(database: Database, row: Any, now_ms: int, fault: str) -> None:
    """Schedule the next try, with a longer delay each time. Gives up after a week."""
    if now_ms - row.time_ms > _GIVEN_UP_MS:
        log.error(
            "%s: given up after a week, delivery to the %s failed: %s", row.id, row.channel, fault
        )
        _mark(database, row, next_ms=None, attempts=row.attempts + 1, fault=f"given up: {fault}")
        return
    delay = min(_FIRST_MS * 2 ** min(row.attempts, 20), _LONGEST_MS)
    # Jitter, so that many senders do not return to a receiver at the same time.
    delay = int(delay * random.uniform(0.8, 1.2))  # noqa: S311
    log.warning(
        "%s: could not be delivered to the %s, next try in %d s: %s",
        row.id,
        row.channel,
        delay // 1000,
        fault,
    )
    _mark(database, row, next_ms=now_ms + delay, attempts=row.attempts + 1, fault=fault)


def _mark(database: Database, row: Any, **values: Any) -> None:
    """Store the state of a delivery."""
    with database.writing() as connection:
        key = {"event": row.event, "channel": row.channel}
        connection.execute(update(deliveries).filter_by(**key).values(**values))


def _log(event: str) -> None:
    content = msgspec.json.decode(event)
    data = msgspec.json.encode(content["data"]).decode()
    log.warning("event %s %s of %s: %s", content["id"], content["type"], content["subject"], data)


def signature(secret: bytes, event_id: str, timestamp: str, body: bytes) -> str:
    """Return the header `webhook-signature`: HMAC-SHA-256 of id, time and body.

    Source: Standard Webhooks.
    """
    signed = b".".join((event_id.encode(), timestamp.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirection: an event is signed for one receiver and must not go to another."""


class _Call:
    """An HTTP call with a time limit, after which its connections are closed."""

    def __init__(self) -> None:
        self._opened: list[http.client.HTTPConnection] = []
        self._result: list[int | Exception] = []

    def status(self, request: urllib.request.Request) -> int:
        """Return the response's status. Raises the errors of urllib, or TimeoutError."""
        # A thread, because a socket's timeout applies to single reads, and not to name resolution.
        thread = threading.Thread(target=self._open, args=(request,), name="webhook", daemon=True)
        thread.start()
        thread.join(WEBHOOK_SECONDS)
        if not self._result:
            for connection in self._opened:
                with contextlib.suppress(OSError, AttributeError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            raise TimeoutError(f"took longer than {WEBHOOK_SECONDS:.0f} s")
        if isinstance(result := self._result[0], Exception):
            raise result
        return result

    def _open(self, request: urllib.request.Request) -> None:
        handlers = (_NoRedirect, _Http(self._connection), _Https(self._connection))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=WEBHOOK_SECONDS) as response:
                self._result.append(response.status)
        except Exception as error:  # raised in the waiting thread
            self._result.append(error)

    def _connection(self, kind: Any, host: str, **options: Any) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection = kind(host, **options)
        self._opened.append(connection)
        return connection


class _Http(urllib.request.HTTPHandler):
    def __init__(self, connect: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._connect: Any = connect

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        return self.do_open(partial(self._connect, http.client.HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, connect: Callable[..., http.client.HTTPConnection]) -> None:
        super().__init__()
        self._connect: Any = connect

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        """Called by urllib."""
        return self.do_open(partial(self._connect, http.client.HTTPSConnection), req)


def _post(webhook: Webhook, event_id: str, event: str, now_ms: int) -> None:
    body, timestamp = event.encode(), str(now_ms // 1000)
    try:
        headers = {
            "Content-Type": _MEDIA_TYPE,
            "webhook-id": event_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(webhook.secret(), event_id, timestamp, body),
        }
        request = urllib.request.Request(webhook.url, body, headers, method="POST")  # noqa: S310  the config allows http and https alone
        status = _Call().status(request)
        if not HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            raise DeliveryFailed(f"responded with the status {status}")
    except MonitoringConfigError as error:
        raise DeliveryFailed(str(error)) from None
    except HTTPError as error:
        error.close()
        raise DeliveryFailed(f"responded with the status {error.code}") from None
    except URLError as error:
        raise DeliveryFailed(_reason(error.reason)) from None
    except TimeoutError as error:
        raise DeliveryFailed(str(error)) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DeliveryFailed(_reason(error)) from None


def _run(command: tuple[str, ...], event: str) -> None:
    """Run a command. If it takes too long, kill it with its child processes."""
    # A file instead of a pipe: a pipe stays open while a process that the command started runs.
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(  # noqa: S603  the operator's command, without a shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            raise DeliveryFailed(f"{command[0]}: {error.strerror}") from None
        try:
            process.communicate(event.encode(), timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            limit = f"{COMMAND_SECONDS:.0f} s"
            raise DeliveryFailed(f"{command[0]}: took longer than {limit}") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _MAX_STDERR_BYTES))
            last = errors.read().decode(errors="replace").strip().splitlines()[-1:]
            raise DeliveryFailed(
                ": ".join([f"{command[0]}: exit code {process.returncode}", *last])[:300]
            )


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
