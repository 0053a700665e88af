"""Fifty promotions and rollbacks, a reload and an end, all under load: no request fails."""

from __future__ import annotations

import signal
import time
from typing import Any

from helpers.service import Serve, Service
from helpers.steady_load import Load, Tally
from helpers.stores import VersionOf
from peerloan.registry import Store

SWAPS = 50
# What the design promises of a promotion.
FOLLOWS_WITHIN = 2.0


def load_on(service: Service, loan: dict[str, Any], **options: Any) -> Load:
    """Clients without a pause, unless told otherwise."""
    port = int(service.url.rpartition(":")[2])
    return Load(port, loan, **({"clients": 8, "pause": 0.0, "tls": False} | options))


def swap(store: Store, versions: tuple[str, str], pause: float) -> list[tuple[float, float, str]]:
    """Promote the second and roll back to the first, in turn; when each was champion."""
    began, champion = 0.0, versions[0]
    spans = []
    for number in range(SWAPS):
        called = time.monotonic()
        state = store.promote(versions[1]) if number % 2 == 0 else store.rollback()
        # The old one is champion until the call returns, the new one from when it began.
        spans.append((began, time.monotonic(), champion))
        began, champion = called, str(state.champion)
        time.sleep(pause)
    spans.append((began, time.monotonic() + 3600, champion))
    return spans


def check(tally: Tally, spans: list[tuple[float, float, str]]) -> None:
    """No fault, and no answer by a version that was not champion lately or since."""
    assert tally.faults == []
    assert set(tally.versions) == {version for _, _, version in spans}
    for asked, answered, version in tally.answers:
        assert any(
            version == champion and begin <= answered and end >= asked - FOLLOWS_WITHIN
            for begin, end, champion in spans
        ), (asked, answered, version)


def test_scorecards_are_swapped_fifty_times(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    first = version_of("additive")
    # The same scorecard under another policy is another version.
    second = store.publish_with_policy(first, store.load(first).policy.by_cost(10))
    store.promote(first)
    service = serve(store, workers=2)
    with load_on(service, loan) as load:
        spans = swap(store, (first, second), 0.25)
        time.sleep(FOLLOWS_WITHIN)
        tally = load.take()
    assert tally.requests > 1000
    check(tally, spans)


def test_a_scorecard_and_an_estimator_are_swapped_fifty_times(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    versions = (version_of("additive"), version_of("basic"))
    store.promote(versions[0])
    service = serve(store, workers=2)
    # About half of what the estimator carries, with its reasons.
    with load_on(service, loan, clients=4, pause=0.02) as load:
        spans = swap(store, versions, 0.3)
        time.sleep(FOLLOWS_WITHIN)
        tally = load.take()
    assert tally.requests > 100
    check(tally, spans)


def test_a_reload_under_load_fails_nothing(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    store.promote(version_of("additive"))
    service = serve(store, workers=2)
    with load_on(service, loan, pause=0.002) as load:
        for number in range(3):
            loaded = service.loaded()
            service.process.send_signal(signal.SIGHUP)
            service.wait_for(lambda loaded=loaded: service.loaded() >= loaded + 2)  # type: ignore[misc]
            time.sleep(4)  # until the old workers have ended
            assert load.take().faults == [], number
    assert service.process.poll() is None


def test_its_end_fails_nothing_that_it_has_begun(
    store: Store, version_of: VersionOf, serve: Serve, loan: dict[str, Any]
) -> None:
    """What a client asks over a new connection afterwards is refused, as it must be."""
    store.promote(version_of("additive"))
    service = serve(store, workers=2)
    with load_on(service, loan, pause=0.002) as load:
        time.sleep(1)
        assert load.take().faults == []
        service.process.terminate()
        service.process.wait(timeout=60)
        time.sleep(0.5)
        tally = load.take()
    assert service.process.returncode == 0
    refused = [fault for fault in tally.faults if not fault.startswith("ConnectionRefusedError")]
    assert refused == [], "begun and not ended"
