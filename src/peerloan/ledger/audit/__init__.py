"""Checks of the ledger: are all records as they were written, and do replays agree."""
