"""The base class of the registry's errors."""

from __future__ import annotations

from peerloan.errors import PeerLoanError


class RegistryError(PeerLoanError, ValueError):
    """A version or a store that can't be used, with the reason."""
