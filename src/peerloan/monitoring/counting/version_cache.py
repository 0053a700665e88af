"""The versions that made decisions, loaded for monitoring."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection

from peerloan.ledger.queries import versions_by_number
from peerloan.ledger.stored_inputs import InputReader
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.registry import Bundle, BundleError, Store, StoreError


class LoadedVersion(NamedTuple):
    """A loaded version, the counter of its loans, and the decoder of their inputs."""

    bundle: Bundle
    counting: BinCounter
    reader: InputReader


class VersionCache:
    """Versions by their numbers in the ledger, each loaded once."""

    def __init__(self, connection: Connection, store: Store) -> None:
        self._store = store
        self.known = versions_by_number(connection)
        self._opened: dict[int, LoadedVersion | None] = {}
        # The versions that can't be loaded, with the reason.
        self.missing: dict[str, str] = {}

    def load(self, number: int) -> LoadedVersion | None:
        """Load a version; None if it can't be loaded.

        Raises StoreFault if the store can't be read. Its decisions must not be left out then,
        because they would never be counted.
        """
        if number not in self._opened:
            self._opened[number] = self._open(number)
        return self._opened[number]

    def _open(self, number: int) -> LoadedVersion | None:
        version = self.known.get(number)
        if version is None:
            self.missing[f"number {number}"] = "is not in the ledger any more"
            return None
        try:
            bundle = self._store.load(version.version)
            if bundle.digest != version.digest:
                raise BundleError(
                    f"is not the version that decided: expected the digest {version.digest[:12]}…, "
                    f"given {bundle.digest[:12]}…"
                )
        except (BundleError, StoreError) as error:
            self.missing[version.version] = str(error)
            return None
        return LoadedVersion(bundle, BinCounter.of(bundle), InputReader(bundle.definition))
