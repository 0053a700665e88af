"""On every page, no text overlaps another, is too faint, or leaves the screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from helpers.page import Page, serving, sign_in, token_command

pytestmark = pytest.mark.longer

LONGEST_NAME = "anna.lindstrom@" + "x" * 49
HEADER = ".rail a, .topbar span, .topbar input, .topbar button"


@pytest.fixture(scope="module")
def signed_in(
    chromium: webdriver.Chrome, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    """The pages for a person with the longest name that is allowed."""
    folder = tmp_path_factory.mktemp("looks")
    token = token_command(folder, "new", LONGEST_NAME)
    with serving(trained, folder) as url:
        chromium.delete_all_cookies()
        page = Page(chromium, url).open()
        assert page.faint_texts() == []
        sign_in(page, token)
        yield page
        chromium.delete_all_cookies()


def check_looks(page: Page) -> None:
    assert page.overlaps(HEADER) == []
    assert page.faint_texts() == []
    root = "document.documentElement"
    assert page.js(f"return {root}.scrollWidth <= {root}.clientWidth")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_page_can_be_read(signed_in: Page, width: int, theme: str) -> None:
    page = signed_in
    with page.on_screen(width, theme):
        page.open()
        assert page.text(".who button") == "Sign out"
        check_looks(page)
        page.decide()
        check_looks(page)
        page.open().fill({"revol_util": 40})
        page.decide()
        assert page.all("#questions button")
        check_looks(page)
        page.open().fill({"loan_amnt": "many"})
        page.decide()
        check_looks(page)
        page.driver.get(f"{page.url}nothing")
        check_looks(page)
        page.driver.get(f"{page.url}decisions")
        check_looks(page)
        page.driver.get(str(page.at("table.rows a").get_attribute("href")))
        assert page.all(".balance")
        check_looks(page)
        page.driver.get(f"{page.url}models")
        check_looks(page)
        page.driver.get(str(page.at("table.rows a").get_attribute("href")))
        check_looks(page)
        page.open_api_reference()
        page.open_prediction_operation()
        page.js("document.querySelector('.json-schema-2020-12-expand-deep-button').click()")
        page.wait_for(
            "return document.querySelectorAll('.json-schema-2020-12__title').length >= 15"
        )
        check_looks(page)
