"""The champion and the challenger that a process serves. Threads replace them while it runs."""

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

# Interval at which a process checks for a new alias state. A check lists one folder.
POLL_SECONDS = 0.5
# Delay before a refused version is loaded again: its files may still be on their way to the volume.
RETRY_SECONDS = 5.0
# Longest time that the start of a process waits for the champion. After that the process starts
# without it, and is unhealthy until it is loaded. Gunicorn would end a worker after 30 seconds.
START_SECONDS = 20.0
CHALLENGER_START_SECONDS = 5.0
# An unreadable store is reported after this time, which is the time limit of a call on the store.
NOT_FOLLOWED_SECONDS = 60.0

# What to do if no version can be served.
_REMEDY = (
    "promote another version (`peerloan models promote VERSION`) or return to the previous one "
    "(`peerloan models rollback`); it is served within seconds, or within a minute if reading a "
    "file hangs; no restart is needed"
)

_STORE_FAULT = "the store can't be read; the log has the reason"

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class LoadedModel:
    """A verified version, and what is derived from it. A request uses the same one to its end.

    Immutable, and safe for threads.
    """

    number: int
    bundle: Bundle
    checks: Checks
    decoder: Decoder
    version: Version

    @cached_property
    def reference(self) -> dict[str, str]:
        """The version as responses name it; they share this dictionary, so don't change it."""
        return {"version": self.version.version, "digest": self.version.digest}


class _AliasFollower:
    """How far an alias is followed, and why its version was refused, if it was.

    `state_number` is the last alias state that was read. `retry_at` is when to load the version
    again (monotonic seconds); None if the last load succeeded.
    """

    def __init__(self, alias: Alias) -> None:
        self.alias: Alias = alias
        self.state_number = 0
        self.refusal: str | None = None
        self.retry_at: float | None = None
        self.mark_followed()

    def mark_followed(self) -> None:
        """Record that the store could be read just now."""
        self._followed_at = time.monotonic()
        metrics.FOLLOWED.labels(self.alias).set(time.time())

    @property
    def age(self) -> float:
        """Seconds since the store could last be read, or since the start of the process."""
        return time.monotonic() - self._followed_at


class ServingModels:
    """The loaded champion (`current`) and challenger, kept up to date with the store's aliases.

    Thread-safe: a request reads `current` once and needs no lock; the threads that `watch` starts
    replace it. Each alias has a separate thread, so a challenger that loads slowly or hangs never
    delays a promotion. A version that can't be loaded raises no error: it is logged, `refusal` has
    the reason, and the version before stays loaded.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followers = (_AliasFollower("champion"), _AliasFollower("challenger"))
        self._fields: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._replacing = threading.Lock()  # held while a thread replaces a model
        self.current: LoadedModel | None = None
        self.challenger: LoadedModel | None = None
        champion = self._followers[0]
        self._first_load = threading.Thread(target=self._load, args=(champion,), daemon=True)
        start_unsignalled(self._first_load)
        self._first_load.join(START_SECONDS)
        if self._first_load.is_alive():
            reason = f"the champion is still being loaded after {START_SECONDS:g} seconds"
            self._refuse(champion, StoreTimeout(store.root, reason))
        # Whether the champion could not be loaded at the start of this process.
        self._failed_at_start = self.current is None and self.refusal is not None

    @property
    def unhealthy(self) -> str | None:
        """Why this process should be replaced: it has not loaded any champion. None if healthy."""
        return self.refusal if self._failed_at_start and self.current is None else None

    @property
    def refusal(self) -> str | None:
        """Why the version that the store names as champion is not loaded; None if it is."""
        return self._followers[0].refusal

    @property
    def remedy(self) -> str | None:
        """What to do if no version is served because the champion was refused; otherwise None."""
        refused = self.current is None and self.refusal not in (None, _STORE_FAULT)
        return _REMEDY if refused else None

    @property
    def challenger_refusal(self) -> str | None:
        """Why the store's challenger is not loaded; None if it is, or if the store has none."""
        return self._followers[1].refusal

    @property
    def not_followed(self) -> str | None:
        """Which aliases could not be read from the store for too long; None if all could."""
        late = [each for each in self._followers if each.age > NOT_FOLLOWED_SECONDS]
        ages = " and ".join(f"the {each.alias} for {each.age:.0f} seconds" for each in late)
        return f"the store could not be followed: {ages}; the log has the reason" if late else None

    def close(self) -> None:
        """Stop following the store."""
        self._closed.set()

    def watch(self) -> None:
        """Start following the store, in threads that end with the process or by `close`.

        Waits up to CHALLENGER_START_SECONDS for the challenger, so that it can score the first
        decision.
        """
        champion, challenger = self._followers
        challenger_loaded = threading.Event()

        def load_challenger() -> None:
            self._load(challenger)
            challenger_loaded.set()

        first_steps = ((challenger, load_challenger), (champion, self._first_load.join))
        for follower, first_step in first_steps:
            thread = threading.Thread(
                target=self._watch, args=(follower, first_step), name=follower.alias, daemon=True
            )
            start_unsignalled(thread)
        challenger_loaded.wait(CHALLENGER_START_SECONDS)

    def _watch(self, follower: _AliasFollower, first_step: Callable[[], object]) -> None:
        """Follow an alias until `close`."""
        first_step()
        while not self._closed.wait(POLL_SECONDS):
            try:
                is_retry = follower.retry_at is not None and time.monotonic() >= follower.retry_at
                if self._store.changed_since(follower.state_number) or is_retry:
                    self._load(follower)
                elif follower.retry_at is None:
                    follower.mark_followed()
            except Exception as error:  # no error of a volume may end this thread
                self._handle_error(follower, error)

    def refresh(self) -> None:
        """Load and verify the versions that the store's aliases name, in this thread.

        If the new champion is refused, the old one stays loaded. No error is raised.
        """
        for follower in self._followers:
            self._load(follower)

    def _load(self, follower: _AliasFollower) -> None:
        """Load the version that an alias names, if it is another one than before."""
        is_champion = follower.alias == "champion"
        try:
            state = self._store.state()
            follower.state_number = max(follower.state_number, state.number)
            if not is_champion:
                self._read_fields(state)
        except Exception as error:
            self._handle_error(follower, error)
            return
        version = state.champion if is_champion else state.challenger
        set_model = self._set_champion if is_champion else self._set_challenger
        try:
            bundle = None if version is None else self._load_bundle(follower, version)
            set_model(state.number, bundle)
        except Exception as error:
            if not is_champion:
                self.challenger = None
            self._refuse(follower, error)
            return
        follower.refusal = follower.retry_at = None
        follower.mark_followed()

    def _load_bundle(self, follower: _AliasFollower, version: str) -> Bundle:
        """Load and verify a version, unless it is the alias's loaded one."""
        model = self.current if follower.alias == "champion" else self.challenger
        if model is not None and model.bundle.version == version:
            return model.bundle
        return self._store.load(version)

    def _read_fields(self, state: AliasState) -> None:
        """Read which fields a request may contain: those of all versions that the state names.

        The challenger's fields are read last, because reading its files may hang.
        """
        others = msgspec.structs.replace(state, challenger=None)
        self._set_fields(self._fields | self._store.known_fields(others))
        self._set_fields(self._store.known_fields(state))

    def _set_fields(self, fields: frozenset[str]) -> None:
        with self._replacing:
            if fields == self._fields:
                return
            self._fields = fields
            if model := self.current:
                self.current = _make_model(model.number, model.bundle, fields)
            if model := self.challenger:
                self.challenger = _make_model(model.number, model.bundle, fields)

    def _set_champion(self, number: int, bundle: Bundle | None) -> None:
        if bundle is None:
            return
        with self._replacing:
            before = self.current
            self.current = _make_model(number, bundle, self._fields)
        if before is None or before.bundle is not bundle:
            if before is not None:
                metrics.SWAPS.inc()
                metrics.SERVING.labels(before.bundle.version).set(0)
            metrics.SERVING.labels(bundle.version).set(1)
            log.info("serving %s (digest %s)", bundle.version, bundle.digest[:12])

    def _set_challenger(self, number: int, bundle: Bundle | None) -> None:
        with self._replacing:
            before = self.challenger
            self.challenger = None if bundle is None else _make_model(number, bundle, self._fields)
        if bundle is not None and (before is None or before.bundle is not bundle):
            log.warning("in shadow: %s", bundle.version)

    def _handle_error(self, follower: _AliasFollower, error: Exception) -> None:
        """Schedule the next read of the store after an error, and report the error.

        If the store can't be read, only the champion's thread reports it.
        """
        follower.retry_at = time.monotonic() + RETRY_SECONDS
        if follower.alias == "champion" or not isinstance(error, StoreFault | OSError):
            self._refuse(follower, error)

    def _refuse(self, follower: _AliasFollower, error: Exception) -> None:
        """Record why a version was refused, and when to try it again; log a new reason once."""
        # A version with an unexpected error is refused like any other.
        is_expected = isinstance(error, RegistryError | OSError)
        log_reason = refusal = str(error) if is_expected else f"{type(error).__name__}: {error}"
        if isinstance(error, StoreTimeout):
            refusal = error.reason
        elif isinstance(error, StoreFault | OSError):  # paths go to the log only
            refusal = _STORE_FAULT
        if not isinstance(error, StoreFault | OSError):
            follower.mark_followed()
        if refusal != follower.refusal:
            served = self.current.bundle.version if self.current else "none"
            advice = f"; still serving: {served}" if follower.alias == "champion" else ""
            if follower.alias == "champion" and self.current is None and refusal != _STORE_FAULT:
                advice += f"; {_REMEDY}"
            traceback = None if is_expected else error
            log.error("%s refused: %s%s", follower.alias, log_reason, advice, exc_info=traceback)
            metrics.REFUSED.labels(follower.alias).inc()
        follower.refusal = refusal
        follower.retry_at = time.monotonic() + RETRY_SECONDS


def _make_model(number: int, bundle: Bundle, fields: frozenset[str]) -> LoadedModel:
    """Derive a loaded model from a bundle; requests may contain `fields` besides its own ones."""
    definition = bundle.definition
    allowed = fields | {*definition.names, *definition.roles.columns()}
    interface = CallerInterface.of(bundle, allowed)
    return LoadedModel(number, bundle, interface.checks, interface.decoder, Version.of(bundle))
