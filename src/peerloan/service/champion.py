"""What a worker serves, champion and challenger, and how it is swapped while requests run."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Literal

from peerloan.ledger import Version
from peerloan.loan import Checks, Decoder
from peerloan.model import Bundle, BundleError, Interface, State, Store, StoreError, StoreFault
from peerloan.service import metrics

log = logging.getLogger(__name__)

# How often a worker looks for a new state of the aliases: the names in one folder.
POLL_SECONDS = 0.5
# A version may still be on its way to this machine's volume: a refused one is tried again.
RETRY_SECONDS = 5.0

# What is done where no version serves: the process goes on looking.
_REMEDY = (
    "promote another version (`peerloan models promote VERSION`) or return to the one before "
    "(`peerloan models rollback`); it serves within seconds, without a restart"
)

_STORE_FAULT = "the store can't be read; the log says why"

Alias = Literal["champion", "challenger"]


@dataclass(frozen=True)
class Serving:
    """One version with everything that follows from it. A request uses one, from start to end."""

    number: int
    bundle: Bundle
    checks: Checks
    decoder: Decoder
    version: Version


class Champion:
    """Holds what is being served. Readers take `current` once; the watching thread replaces it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen = 0
        self._refusals: dict[Alias, str] = {}
        self._retry_in = 0.0
        self.current: Serving | None = None
        self.challenger: Serving | None = None
        self.refresh()
        # Whether this process could not load the champion that it was started for.
        self._failed_at_start = self.current is None and self.refusal is not None

    @property
    def unhealthy(self) -> str | None:
        """Why this process should be replaced, if it should: it never loaded its champion."""
        return self.refusal if self._failed_at_start and self.current is None else None

    @property
    def refusal(self) -> str | None:
        """Why the newest champion is not the one that serves, if so."""
        return self._refusals.get("champion")

    @property
    def remedy(self) -> str | None:
        """What to do where no version serves because the champion was refused."""
        refused = self.current is None and self.refusal not in (None, _STORE_FAULT)
        return _REMEDY if refused else None

    @property
    def challenger_refusal(self) -> str | None:
        """Why the challenger that the store names is not in shadow, if so."""
        return self._refusals.get("challenger")

    def watch(self) -> threading.Thread:
        """Start following the store; the thread ends with the process."""
        thread = threading.Thread(target=self._watch, name="champion", daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        stop = threading.Event()
        while not stop.wait(POLL_SECONDS):
            self._retry_in -= POLL_SECONDS
            try:
                changed = self._store.changed_since(self._seen)
                if changed or (self._refusals and self._retry_in <= 0):
                    self.refresh()
            except Exception as error:  # the thread must outlive whatever a volume can raise
                self._refuse("champion", error)

    def refresh(self) -> None:
        """Load and verify what the store names; the old champion stays if the new one is refused,
        and without the challenger all goes on.
        """
        try:
            state = self._store.state()
            self._seen = max(self._seen, state.number)
            known = self._store.known_fields(state)
        except Exception as error:
            self._refuse("champion", error)
            return
        self._refresh_champion(state, known)
        self._refresh_challenger(state, known)

    def _refresh_champion(self, state: State, known: frozenset[str]) -> None:
        now = self.current
        opened = self._open("champion", now, state, known)
        if opened is None:
            return
        self.current, bundle = opened, opened.bundle
        if now is None or now.bundle is not bundle:
            if now is not None:
                metrics.SWAPS.inc()
                metrics.SERVING.labels(now.bundle.version).set(0)
            metrics.SERVING.labels(bundle.version).set(1)
            log.warning("serving %s (digest %s)", bundle.version, bundle.digest[:12])

    def _refresh_challenger(self, state: State, known: frozenset[str]) -> None:
        now = self.challenger
        self.challenger = opened = self._open("challenger", now, state, known)
        if opened is not None and (now is None or now.bundle is not opened.bundle):
            log.warning("in shadow: %s", opened.bundle.version)

    def _open(
        self, alias: Alias, now: Serving | None, state: State, known: frozenset[str]
    ) -> Serving | None:
        """What the store names, ready to serve; None if it names none, or one that is refused.

        A version that serves already was verified, and is not read again.
        """
        version = state.champion if alias == "champion" else state.challenger
        opened = None
        if version is not None:
            try:
                if now is not None and now.bundle.version == version:
                    bundle = now.bundle
                else:
                    bundle = self._store.load(version)
                opened = _serving(state.number, bundle, known)
            except Exception as error:
                self._refuse(alias, error)
                return None
        self._refusals.pop(alias, None)
        return opened

    def _refuse(self, alias: Alias, error: Exception) -> None:
        """Have a version tried again later; why is said and counted once."""
        # A version that is bad in a way that nobody thought of is refused like any other.
        thought_of = isinstance(error, BundleError | StoreError | OSError)
        reason = said = str(error) if thought_of else f"{type(error).__name__}: {error}"
        if isinstance(error, StoreFault | OSError):  # where files stand is for the log alone
            said = _STORE_FAULT
        if said != self._refusals.get(alias):
            kept = self.current.bundle.version if self.current else "none"
            still = f"; still serving: {kept}" if alias == "champion" else ""
            if self.current is None and said != _STORE_FAULT:
                still += f"; {_REMEDY}"
            fault = None if thought_of else error
            log.error("%s refused: %s%s", alias, reason, still, exc_info=fault)
            metrics.REFUSED.labels(alias).inc()
        self._refusals[alias] = said
        self._retry_in = RETRY_SECONDS


def _serving(number: int, bundle: Bundle, known: frozenset[str]) -> Serving:
    made = Interface.of(bundle, known)
    return Serving(number, bundle, made.checks, made.decoder, Version.of(bundle))
