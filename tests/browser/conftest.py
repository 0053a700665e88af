"""Fixtures of the browser tests: one browser and one service for each module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from helpers.page import Page, browser, serving


@pytest.fixture(scope="module")
def url(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a service."""
    with serving(trained, tmp_path_factory.mktemp("page")) as address:
        yield address


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for the module."""
    driver = browser(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: webdriver.Chrome, url: str) -> Iterator[Page]:
    """The empty form; at the end, the browser's console must have no new messages."""
    opened = Page(chromium, url).open()
    opened.complaints()  # discard earlier messages
    yield opened
    assert opened.complaints() == []
