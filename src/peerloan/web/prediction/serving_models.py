"""The champion and the challenger that a worker serves, replaced while requests run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec

from peerloan.ledger import Version
from peerloan.loan import Checks, Decoder
from peerloan.registry import (
    AliasState,
    Bundle,
    CallerInterface,
    RegistryError,
    Store,
    StoreFault,
    StoreTimeout,
)
from peerloan.threads import start_unsignalled
from peerloan.web.telemetry import metrics

log = logging.getLogger(__name__)

# Interval at which a worker checks for a new alias state; it lists one folder.
POLL_SECONDS = 0.5
# Delay before a refused version is tried again: it may still be copied to this machine's volume.
RETRY_SECONDS = 5.0
# A process starts without a champion that takes longer to load, and is unhealthy until it is
# loaded. It is less than the 30 seconds after which Gunicorn would end the worker.
START_SECONDS = 20.0
CHALLENGER_START_SECONDS = 5.0
# An unreadable store is reported after this time, the longest that a call on it may take.
NOT_FOLLOWED_SECONDS = 60.0

# The remedy if no version serves; the process retries by itself.
_REMEDY = (
    "promote another version (`peerloan models promote VERSION`) or return to the one before "
    "(`peerloan models rollback`); it serves within seconds, or a minute if a file hangs, without "
    "a restart"
)

_STORE_FAULT = "the store can't be read; the log says why"

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class LoadedModel:
    """One verified version and what is derived from it. A request uses one from start to end."""

    number: int
    bundle: Bundle
    checks: Checks
    decoder: Decoder
    version: Version

    @cached_property
    def reference(self) -> dict[str, str]:
        """The version as an answer names it; shared by all answers, so don't change it."""
        return {"version": self.version.version, "digest": self.version.digest}


class _Follower:
    """The progress of following an alias, and the reason if it stopped."""

    def __init__(self, alias: Alias) -> None:
        self.alias: Alias = alias
        self.state_number = 0
        self.refusal: str | None = None
        self.retry_at: float | None = None
        self.mark_followed()

    def mark_followed(self) -> None:
        """Record that the store was readable just now."""
        self._followed_at = time.monotonic()
        metrics.FOLLOWED.labels(self.alias).set(time.time())

    @property
    def age(self) -> float:
        """Seconds since the store was last readable, or since the start."""
        return time.monotonic() - self._followed_at


class ServingModels:
    """Holds the champion (`current`) and the challenger, and follows the store's aliases.

    Thread-safe: a request reads `current` once and needs no lock; the watching threads replace it.
    Each alias has its own thread, so a challenger that loads slowly or hangs never delays a
    promotion. A version that can't be loaded raises no error: `refusal` returns the reason.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers = (_Follower("champion"), _Follower("challenger"))
        self._fields: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._replacing = threading.Lock()  # for the two threads; requests need no lock
        self.current: LoadedModel | None = None
        self.challenger: LoadedModel | None = None
        champion = self._followers[0]
        self._first_look = threading.Thread(target=self._look, args=(champion,), daemon=True)
        start_unsignalled(self._first_look)
        self._first_look.join(START_SECONDS)
        if self._first_look.is_alive():
            reason = f"the champion is still being loaded after {START_SECONDS:g} seconds"
            self._refuse(champion, StoreTimeout(store.root, reason))
        # Whether the champion could not be loaded at the start of this process.
        self._failed_at_start = self.current is None and self.refusal is not None

    @property
    def unhealthy(self) -> str | None:
        """Why this process should be replaced: it never loaded its champion. None if healthy."""
        return self.refusal if self._failed_at_start and self.current is None else None

    @property
    def refusal(self) -> str | None:
        """Why the newest champion is not loaded; None if it is."""
        return self._followers[0].refusal

    @property
    def remedy(self) -> str | None:
        """The next step if no version serves because the champion was refused; otherwise None."""
        refused = self.current is None and self.refusal not in (None, _STORE_FAULT)
        return _REMEDY if refused else None

    @property
    def challenger_refusal(self) -> str | None:
        """Why the store's challenger is not in shadow; None if it is, or if there is none."""
        return self._followers[1].refusal

    @property
    def not_followed(self) -> str | None:
        """Which alias could not be followed for longer than usual; None if all could."""
        late = [each for each in self._followers if each.age > NOT_FOLLOWED_SECONDS]
        ages = " and ".join(f"the {each.alias} for {each.age:.0f} seconds" for each in late)
        return f"the store could not be followed: {ages}; the log says why" if late else None

    def close(self) -> None:
        """Stop following the store."""
        self._closed.set()

    def watch(self) -> None:
        """Start following the store, in threads that end with the process or by `close`.

        Waits a moment for the challenger, so that it can score the first decision.
        """
        champion, challenger = self._followers
        has_looked = threading.Event()

        def first_look() -> None:
            self._look(challenger)
            has_looked.set()

        begins = ((challenger, first_look), (champion, self._first_look.join))
        for follower, begin in begins:
            thread = threading.Thread(
                target=self._watch, args=(follower, begin), name=follower.alias, daemon=True
            )
            start_unsignalled(thread)
        has_looked.wait(CHALLENGER_START_SECONDS)

    def _watch(self, follower: _Follower, begin: Callable[[], object]) -> None:
        begin()
        while not self._closed.wait(POLL_SECONDS):
            try:
                is_retry = follower.retry_at is not None and time.monotonic() >= follower.retry_at
                if self._store.changed_since(follower.state_number) or is_retry:
                    self._look(follower)
                elif follower.retry_at is None:
                    follower.mark_followed()
            except Exception as error:  # the thread must survive any error of a volume
                self._fail(follower, error)

    def refresh(self) -> None:
        """Load and verify the versions that the store's aliases name.

        If the new champion is refused, the old one stays. A missing challenger is no fault.
        """
        for follower in self._followers:
            self._look(follower)

    def _look(self, follower: _Follower) -> None:
        """Load the version that an alias names, if it has changed."""
        is_champion = follower.alias == "champion"
        try:
            state = self._store.state()
            follower.state_number = max(follower.state_number, state.number)
            if not is_champion:
                self._read_fields(state)
        except Exception as error:
            self._fail(follower, error)
            return
        version = state.champion if is_champion else state.challenger
        take = self._take_champion if is_champion else self._take_challenger
        try:
            take(state.number, None if version is None else self._bundle(follower, version))
        except Exception as error:
            if not is_champion:
                self.challenger = None
            self._refuse(follower, error)
            return
        follower.refusal = follower.retry_at = None
        follower.mark_followed()

    def _bundle(self, follower: _Follower, version: str) -> Bundle:
        """Load and verify a version; one that is loaded already is reused."""
        now = self.current if follower.alias == "champion" else self.challenger
        if now is not None and now.bundle.version == version:
            return now.bundle
        return self._store.load(version)

    def _read_fields(self, state: AliasState) -> None:
        """Read which fields requests may contain. The challenger's come last: its file may hang."""
        others = msgspec.structs.replace(state, challenger=None)
        self._set_fields(self._fields | self._store.known_fields(others))
        self._set_fields(self._store.known_fields(state))

    def _set_fields(self, fields: frozenset[str]) -> None:
        with self._replacing:
            if fields == self._fields:
                return
            self._fields = fields
            if now := self.current:
                self.current = _load_model(now.number, now.bundle, fields)
            if now := self.challenger:
                self.challenger = _load_model(now.number, now.bundle, fields)

    def _take_champion(self, number: int, bundle: Bundle | None) -> None:
        if bundle is None:
            return
        with self._replacing:
            before = self.current
            self.current = _load_model(number, bundle, self._fields)
        if before is None or before.bundle is not bundle:
            if before is not None:
                metrics.SWAPS.inc()
                metrics.SERVING.labels(before.bundle.version).set(0)
            metrics.SERVING.labels(bundle.version).set(1)
            log.warning("serving %s (digest %s)", bundle.version, bundle.digest[:12])

    def _take_challenger(self, number: int, bundle: Bundle | None) -> None:
        with self._replacing:
            before = self.challenger
            self.challenger = None if bundle is None else _load_model(number, bundle, self._fields)
        if bundle is not None and (before is None or before.bundle is not bundle):
            log.warning("in shadow: %s", bundle.version)

    def _fail(self, follower: _Follower, error: Exception) -> None:
        """Schedule the next read of the store after an error.

        If the store can't be read, only the champion's thread reports it.
        """
        follower.retry_at = time.monotonic() + RETRY_SECONDS
        if follower.alias == "champion" or not isinstance(error, StoreFault | OSError):
            self._refuse(follower, error)

    def _refuse(self, follower: _Follower, error: Exception) -> None:
        """Schedule another try of a refused version; log and count each reason once."""
        # A version with an unexpected fault is refused like any other.
        thought_of = isinstance(error, RegistryError | OSError)
        reason = said = str(error) if thought_of else f"{type(error).__name__}: {error}"
        if isinstance(error, StoreTimeout):
            said = error.reason
        elif isinstance(error, StoreFault | OSError):  # paths go to the log only
            said = _STORE_FAULT
        if not isinstance(error, StoreFault | OSError):
            follower.mark_followed()
        if said != follower.refusal:
            kept = self.current.bundle.version if self.current else "none"
            still = f"; still serving: {kept}" if follower.alias == "champion" else ""
            if follower.alias == "champion" and self.current is None and said != _STORE_FAULT:
                still += f"; {_REMEDY}"
            fault = None if thought_of else error
            log.error("%s refused: %s%s", follower.alias, reason, still, exc_info=fault)
            metrics.REFUSED.labels(follower.alias).inc()
        follower.refusal = said
        follower.retry_at = time.monotonic() + RETRY_SECONDS


def _load_model(number: int, bundle: Bundle, known: frozenset[str]) -> LoadedModel:
    definition = bundle.definition
    made = CallerInterface.of(bundle, known | {*definition.names, *definition.roles.columns()})
    return LoadedModel(number, bundle, made.checks, made.decoder, Version.of(bundle))
