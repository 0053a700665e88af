"""The versions that decided, as they are watched."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection

from peerloan.ledger.queries import known_versions
from peerloan.ledger.stored_inputs import InputReader
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.registry import Bundle, BundleError, Store, StoreError


class Opened(NamedTuple):
    """A version, how its loans are counted, and how their inputs are read."""

    bundle: Bundle
    counting: BinCounter
    reader: InputReader


class Versions:
    """Versions by their numbers in the ledger, each opened once."""

    def __init__(self, connection: Connection, store: Store) -> None:
        self._store = store
        self.known = known_versions(connection)
        self._opened: dict[int, Opened | None] = {}
        # Those that can't be opened, and why.
        self.missing: dict[str, str] = {}

    def open(self, number: int) -> Opened | None:
        """A version; None if it can't be opened. Raises StoreFault while the store can't be read:
        what is left out then would be left out for good.
        """
        if number not in self._opened:
            self._opened[number] = self._open(number)
        return self._opened[number]

    def _open(self, number: int) -> Opened | None:
        version = self.known.get(number)
        if version is None:
            self.missing[f"number {number}"] = "is gone from the ledger"
            return None
        try:
            bundle = self._store.load(version.version)
            if bundle.digest != version.digest:
                raise BundleError("is not the version that decided: its digest is another")
        except (BundleError, StoreError) as error:
            self.missing[version.version] = str(error)
            return None
        return Opened(bundle, BinCounter.of(bundle), InputReader(bundle.definition))
