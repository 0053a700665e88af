"""The monitoring worker: runs monitoring rounds, delivers events, and responds to drift."""
