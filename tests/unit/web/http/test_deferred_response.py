"""A pending response is sent once its outcome is known, whoever comes first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

import pytest
from flask import Flask, Response, request
from werkzeug.test import EnvironBuilder

from peerloan.web.http.deferred_response import PendingResponse

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

Make = Callable[[], PendingResponse[str]]


@pytest.fixture
def make() -> Make:
    """Make a pending response whose replacement names the outcome and the request's path."""

    def replace(outcome: str) -> WSGIApplication:
        return Response(f"{outcome} at {request.path}")

    environ = EnvironBuilder("/asked").get_environ()
    return lambda: PendingResponse(Flask("small"), environ, replace)


def body(application: WSGIApplication) -> bytes:
    parts: Iterable[bytes] = application(
        EnvironBuilder("/").get_environ(), lambda *_: lambda _: None
    )
    return b"".join(parts)


@pytest.mark.parametrize("resolved_first", [True, False])
def test_the_callback_runs_once_both_have_come(make: Make, resolved_first: bool) -> None:
    pending = make()
    calls: list[str | None] = []
    steps: list[Callable[[], object]] = [
        lambda: pending.resolve(None),
        lambda: pending.on_resolved(lambda: calls.append(pending.failure)),
    ]
    first, second = steps if resolved_first else reversed(steps)
    first()
    assert calls == []
    second()
    assert calls == [None]


def test_the_callback_runs_once_where_both_come_at_once(make: Make) -> None:
    for _ in range(200):
        pending, start = make(), threading.Barrier(2)
        calls: list[str] = []

        def meet(step: Callable[[], object], start: threading.Barrier = start) -> None:
            start.wait()
            step()

        steps = (
            partial(pending.resolve, "late"),
            partial(pending.on_resolved, partial(calls.append, "run")),
        )
        threads = [threading.Thread(target=meet, args=(step,)) for step in steps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert calls == ["run"]


def test_who_waits_goes_on_once_it_is_resolved(make: Make) -> None:
    pending = make()
    thread = threading.Thread(target=pending.wait)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    pending.resolve(None)
    thread.join(10)
    assert not thread.is_alive()


def test_the_prepared_response_stays_where_nothing_else_came_of_it(make: Make) -> None:
    pending = make()
    pending.resolve(None)
    assert pending.replacement() is None


def test_another_response_is_made_in_the_context_of_the_request(make: Make) -> None:
    pending = make()
    pending.resolve("refused")
    replacement = pending.replacement()
    assert replacement is not None
    assert body(replacement) == b"refused at /asked"
