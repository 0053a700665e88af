"""PeerLoan Risk: how likely a loan holder is to be late with payments, and why."""

__version__ = "0.1.0"
