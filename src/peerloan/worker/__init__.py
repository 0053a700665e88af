"""The monitoring worker: runs monitoring rounds, sends alerts, and responds to drift."""
