"""Lists and the search box by keyboard."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from helpers.page import Page


def test_a_list_is_walked_by_keys(page: Page) -> None:
    for _ in range(2):
        page.open().decide()
    page.driver.get(f"{page.url}decisions")
    links = [str(link.get_attribute("href")) for link in page.all("table.rows td:first-child a")]
    assert len(links) == 2
    body = page.at("body")
    body.send_keys("j")
    body.send_keys("j")
    body.send_keys("j")
    assert page.driver.switch_to.active_element.get_attribute("href") == links[1]
    body.send_keys("k")
    assert len(page.all("tr.at")) == 1
    before = page.at("html")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert page.driver.current_url == links[0]


def test_the_search_box_and_the_keys_are_one_key_away(page: Page) -> None:
    page.at("body").send_keys("/")
    find = page.driver.switch_to.active_element
    assert find.get_attribute("id") == "find"
    before = page.at("html")
    find.send_keys("no/such?loan", Keys.ENTER)
    page.wait_until_left(before)
    assert page.driver.current_url.endswith("/decisions?loan_id=no/such?loan")
    assert "matches the filter" in page.text("main")
    page.at("body").send_keys("?")
    assert page.at("#keys").is_displayed()
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not page.at("#keys").is_displayed()
