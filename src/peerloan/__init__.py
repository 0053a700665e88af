"""PeerLoan Risk: how likely each loan holder is to be late in the next quarter, yes or no, and why."""

__version__ = "0.1.0"
