"""Audit of the ledger: verify that records are as they were stored, and replay decisions."""
