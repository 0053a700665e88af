"""Signing in with a token, and the API reference, in a browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from helpers.page import Page, serving, sign_in, token_command

Guarded = tuple[Page, str]


@pytest.fixture
def guarded(chromium: webdriver.Chrome, trained: Path, tmp_path: Path) -> Iterator[Guarded]:
    """A service that asks for a token, in a browser that has not signed in, and a token."""
    token = token_command(tmp_path, "new", "anna")
    with serving(trained, tmp_path) as url:
        page = Page(chromium, url)
        chromium.delete_all_cookies()
        yield page, token
        chromium.delete_all_cookies()


def test_a_person_signs_in_decides_and_signs_out(guarded: Guarded) -> None:
    page, token = guarded
    page.open()
    assert page.text("h1") == "Sign in"
    assert page.at("#token").get_attribute("type") == "password"
    sign_in(page, token)
    assert page.text("h1") == "Enter a loan"
    assert "anna" in page.text(".who")
    page.decide()
    assert page.probability() > 0
    before = page.at("html")
    page.at(".who button").send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert page.text("h1") == "Sign in"
    assert page.open().text("h1") == "Sign in"


@pytest.mark.longer
def test_a_wrong_token_is_refused_and_the_right_one_leads_to_the_requested_page(
    guarded: Guarded,
) -> None:
    page, token = guarded
    page.driver.get(f"{page.url}docs")
    sign_in(page, "peerloan_wrong")
    assert "This token is unknown" in page.text("[role=alert]")
    assert "wrong" not in str(page.at("#token").get_property("value"))
    sign_in(page, f"  {token} ")
    assert page.driver.current_url.rstrip("?") == f"{page.url}docs"


@pytest.mark.longer
def test_a_revoked_token_signs_its_person_out(guarded: Guarded, tmp_path: Path) -> None:
    page, token = guarded
    page.open()
    sign_in(page, token)
    token_command(tmp_path, "revoke", "anna")
    WebDriverWait(page.driver, 5).until(lambda _: page.open().text("h1") == "Sign in")
    again = token_command(
        tmp_path, "new", "anna"
    )  # a new token of the same name does not revive an old cookie
    WebDriverWait(page.driver, 5).until(
        lambda _: requests.get(page.url, headers={"Authorization": f"Bearer {again}"}).ok
    )
    assert page.open().text("h1") == "Sign in"


@pytest.mark.longer
def test_the_cookie_is_no_token_and_is_hidden_from_scripts(guarded: Guarded) -> None:
    page, token = guarded
    page.open()
    sign_in(page, token)
    (cookie,) = page.driver.get_cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"
    assert "expiry" not in cookie
    assert token not in cookie["value"]
    assert page.js("return document.cookie") == ""
    content, _, signature = cookie["value"].rpartition(".")
    forged = f"{content}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"
    for value, status in ((cookie["value"], 200), (forged, 401), ("x", 401), ("", 401)):
        head = {"Cookie": f"{cookie['name']}={value}"}
        assert requests.get(page.url, headers=head).status_code == status
    # The cookie is not accepted as a token.
    head = {"Authorization": f"Bearer {cookie['value']}"}
    assert requests.get(page.url, headers=head).status_code == 401


@pytest.mark.longer
@pytest.mark.parametrize("proto", ["https", "http"])
def test_behind_tls_the_cookie_never_leaves_tls(guarded: Guarded, proto: str) -> None:
    page, token = guarded
    answer = requests.post(
        f"{page.url}sign-in",
        data={"token": token},
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
def test_the_redirect_leads_to_no_other_site(guarded: Guarded, target: str, leads_to: str) -> None:
    page, token = guarded
    form = {"token": token, "next": target}
    answer = requests.post(f"{page.url}sign-in", data=form, allow_redirects=False)
    assert answer.headers["Location"] == leads_to


@pytest.mark.longer
@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_the_form_fits_the_screen(guarded: Guarded, width: int, theme: str) -> None:
    page, token = guarded
    with page.on_screen(width, theme):
        page.open()
        page.check_fit(theme)
        sign_in(page, token)
        page.check_fit(theme)
        page.open_api_reference()
        page.check_fit(theme)


# The API reference


@pytest.mark.longer
def test_the_api_can_be_read_and_tried(page: Page) -> None:
    page.open_api_reference()
    page.try_prediction()
    response = page.text(".live-responses-table")
    assert "200" in response
    assert '"probability"' in response


@pytest.mark.longer
def test_the_api_reference_loads_from_this_site_only(page: Page) -> None:
    page.open_api_reference()
    loaded: Any = page.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [address for address in loaded if not address.startswith((page.url, "data:"))] == []
