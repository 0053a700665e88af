"""Signing in with a token, and the page of the API, as a person with a browser meets them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from helpers.page import Page, serving, sign_in, token

Guarded = tuple[Page, str]


@pytest.fixture
def guarded(chromium: webdriver.Chrome, trained: Path, tmp_path: Path) -> Iterator[Guarded]:
    """A service that asks for a token, in a browser that has not signed in, and a token."""
    made = token(tmp_path, "new", "anna")
    with serving(trained, tmp_path) as url:
        page = Page(chromium, url)
        chromium.delete_all_cookies()
        yield page, made
        chromium.delete_all_cookies()


def test_a_person_signs_in_decides_and_signs_out(guarded: Guarded) -> None:
    page, made = guarded
    page.open()
    assert page.text("h1") == "Sign in"
    assert page.at("#token").get_attribute("type") == "password"
    sign_in(page, made)
    assert page.text("h1") == "Enter a loan"
    assert "anna" in page.text("nav")
    page.decide()
    assert page.probability() > 0
    before = page.at("html")
    page.at("nav button").send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert page.text("h1") == "Sign in"
    assert page.open().text("h1") == "Sign in"


@pytest.mark.longer
def test_a_wrong_token_is_told_and_the_right_one_leads_to_what_was_asked_for(
    guarded: Guarded,
) -> None:
    page, made = guarded
    page.driver.get(f"{page.url}docs")
    sign_in(page, "peerloan_wrong")
    assert "This token is unknown" in page.text("[role=alert]")
    assert "wrong" not in str(page.at("#token").get_property("value"))
    sign_in(page, f"  {made} ")
    assert page.driver.current_url.rstrip("?") == f"{page.url}docs"


@pytest.mark.longer
def test_a_revoked_token_signs_its_person_out(guarded: Guarded, tmp_path: Path) -> None:
    page, made = guarded
    page.open()
    sign_in(page, made)
    token(tmp_path, "revoke", "anna")
    WebDriverWait(page.driver, 5).until(lambda _: page.open().text("h1") == "Sign in")
    again = token(tmp_path, "new", "anna")  # another token of the same name lets no old cookie in
    WebDriverWait(page.driver, 5).until(
        lambda _: requests.get(page.url, headers={"Authorization": f"Bearer {again}"}).ok
    )
    assert page.open().text("h1") == "Sign in"


@pytest.mark.longer
def test_what_the_browser_keeps_is_no_token_and_no_script_s(guarded: Guarded) -> None:
    page, made = guarded
    page.open()
    sign_in(page, made)
    (cookie,) = page.driver.get_cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert "expiry" not in cookie
    assert made not in cookie["value"]
    assert page.js("return document.cookie") == ""
    said, _, signature = cookie["value"].rpartition(".")
    forged = f"{said}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    for value, status in ((cookie["value"], 200), (forged, 401), ("x", 401), ("", 401)):
        head = {"Cookie": f"{cookie['name']}={value}"}
        assert requests.get(page.url, headers=head).status_code == status
    # As a token it is worth nothing.
    head = {"Authorization": f"Bearer {cookie['value']}"}
    assert requests.get(page.url, headers=head).status_code == 401


@pytest.mark.longer
@pytest.mark.parametrize("proto", ["https", "http"])
def test_behind_tls_the_cookie_never_leaves_tls(guarded: Guarded, proto: str) -> None:
    page, made = guarded
    answer = requests.post(
        f"{page.url}sign-in",
        data={"token": made},
        headers={"X-Forwarded-Proto": proto},
        allow_redirects=False,
    )
    assert answer.status_code == 303
    assert ("Secure" in answer.headers["Set-Cookie"]) == (proto == "https")


@pytest.mark.longer
@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("/docs", "/docs"),
        ("/?a=b", "/?a=b"),
        ("https://evil.example/", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("/docs\n", "/"),
        ("", "/"),
    ],
)
def test_the_way_back_leads_to_no_other_site(guarded: Guarded, target: str, leads_to: str) -> None:
    page, made = guarded
    form = {"token": made, "next": target}
    answer = requests.post(f"{page.url}sign-in", data=form, allow_redirects=False)
    assert answer.headers["Location"] == leads_to


@pytest.mark.longer
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_the_form_fits_the_screen(guarded: Guarded, width: int, theme: str) -> None:
    page, made = guarded
    with page.on_screen(width, theme):
        page.open()
        page.check_fit(theme)
        sign_in(page, made)
        page.check_fit(theme)
        page.driver.get(f"{page.url}docs")
        page.wait_for("return document.querySelectorAll('.opblock').length >= 6")
        page.check_fit(theme)


# The page of the API


@pytest.mark.longer
def test_the_api_can_be_read_and_tried(page: Page) -> None:
    page.driver.get(f"{page.url}docs")
    page.wait_for("return document.querySelectorAll('.opblock').length >= 6")
    page.js("document.querySelector('[id$=-predict] .opblock-summary-control').click()")
    page.wait_for("return document.querySelector('button.execute') !== null")
    # On a busy machine a click may come before the page has ears.
    page.wait_for(
        "const told = document.querySelector('.live-responses-table .microlight') !== null;"
        "if (!told) document.querySelector('button.execute').click(); return told"
    )
    shown = page.text(".live-responses-table")
    assert "200" in shown
    assert '"probability"' in shown


@pytest.mark.longer
def test_the_api_s_page_comes_from_this_site_alone(page: Page) -> None:
    page.driver.get(f"{page.url}docs")
    page.wait_for("return document.querySelectorAll('.opblock').length >= 6")
    loaded: Any = page.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [each for each in loaded if not each.startswith((page.url, "data:"))] == []
