"""An application's shared objects are typed, of one application each, and have one name."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import get_type_hints

import pytest
from flask import Flask

import peerloan
from peerloan.settings import Settings
from peerloan.web import create_app
from peerloan.web.services import Services, services, services_of


def make(folder: Path) -> Flask:
    return create_app(Settings(folder / "store", folder / "tokens"), on_loopback=True)


def test_each_application_has_services_of_its_own(tmp_path: Path) -> None:
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    held = services_of(first)
    assert held.store.root == tmp_path / "first" / "store"
    assert services_of(first) is held
    kinds = get_type_hints(Services)
    for field in fields(Services):
        own = getattr(held, field.name)
        assert isinstance(own, kinds[field.name]), field.name
        assert own is not getattr(services_of(second), field.name), field.name
    with first.app_context():
        assert services() is held


def test_services_do_not_change(tmp_path: Path) -> None:
    held = services_of(make(tmp_path))
    with pytest.raises(FrozenInstanceError):
        held.store = held.store  # type: ignore[misc]


def test_an_application_made_in_another_way_has_none() -> None:
    app = Flask("other")
    with pytest.raises(LookupError, match="the application other has no services"):
        services_of(app)
    with app.app_context(), pytest.raises(LookupError):
        services()


def test_nothing_else_stands_among_the_extensions(tmp_path: Path) -> None:
    """Views get what they share by `services`, typed, and never by a name in a text."""
    assert set(make(tmp_path).extensions) == {"bootstrap", "peerloan"}
    sources = Path(peerloan.__file__).parent.rglob("*.py")
    using = [
        path.name for path in sources if re.search(r"\bextensions(\[|\.get)", path.read_text())
    ]
    assert using == ["services.py"]
