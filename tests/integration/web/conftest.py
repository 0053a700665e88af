"""Fixtures of the web process's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from helpers.apps import create_app
from helpers.stores import VersionOf
from peerloan.database import Database
from peerloan.registry import Store
from peerloan.settings import Settings


@pytest.fixture
def champion(store: Store, version_of: VersionOf) -> Store:
    """The test's store, with a scorecard as champion."""
    store.promote(version_of("additive"))
    return store


@pytest.fixture
def client(store: Store, version_of: VersionOf, database: Database, tmp_path: Path) -> FlaskClient:
    """A service with a scorecard, over the ledger of the test."""
    store.promote(version_of("additive"))
    url = database.url.render_as_string(hide_password=False)
    return create_app(
        Settings(store.root, tmp_path / "tokens", url), on_loopback=True
    ).test_client()
