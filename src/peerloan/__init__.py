"""PeerLoan Risk: how likely a loan holder is to be late in the next quarter, and why."""

__version__ = "0.1.0"
