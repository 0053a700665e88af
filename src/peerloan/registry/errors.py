"""The root of what the registry raises."""

from __future__ import annotations

from peerloan.errors import PeerLoanError


class RegistryError(PeerLoanError, ValueError):
    """A version or a store that can't be used, and why."""
