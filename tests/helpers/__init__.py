"""Helpers that tests of several rooms share: servers, ledgers, stores, books and requests."""
