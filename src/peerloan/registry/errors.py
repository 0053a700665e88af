"""The base class of the registry's errors."""

from __future__ import annotations

from peerloan.errors import PeerLoanError


class RegistryError(PeerLoanError, ValueError):
    """A version or a store can't be used; the message gives the reason."""
