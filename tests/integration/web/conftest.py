"""Fixtures of the web process's tests."""

from __future__ import annotations

import pytest

from helpers.stores import VersionOf
from peerloan.registry import Store


@pytest.fixture
def champion(store: Store, version_of: VersionOf) -> Store:
    """The test's store, with a scorecard as champion."""
    store.promote(version_of("additive"))
    return store
