"""The page in a browser, behind Nginx under a path prefix."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from helpers.page import Page, serving, sign_in, token_command
from helpers.ports import free_port
from helpers.programs import require

pytestmark = pytest.mark.longer

# `{to}` is the address of the service. If it ends with a slash, Nginx strips the prefix.
_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location /risk/ {{
            proxy_pass {to};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Prefix /risk;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
        location / {{
            return 418;
        }}
    }}
}}
"""


def nginx(folder: Path, to: str) -> tuple[subprocess.Popen[bytes], str]:
    """Start Nginx in front of a service; skips the test if Nginx is not installed."""
    (program,) = require("Nginx", "nginx")
    port = free_port()
    folder.mkdir()
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, port=port, to=to), "utf-8")
    return subprocess.Popen([program, "-c", configuration]), f"http://127.0.0.1:{port}/risk/"


@pytest.fixture(params=["/", ""], ids=["prefix stripped", "prefix passed on"])
def behind_nginx(
    request: pytest.FixtureRequest,
    chromium: webdriver.Chrome,
    trained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Page, str]]:
    """The service behind Nginx under /risk/, in a browser, and a token."""
    token = token_command(tmp_path, "new", "anna")
    monkeypatch.setenv("PEERLOAN_PREFIX", "/risk")
    with serving(trained, tmp_path) as url:
        process, address = nginx(tmp_path / "nginx", url.rstrip("/") + request.param)
        try:
            _wait_until_up(address)
            chromium.delete_all_cookies()
            yield Page(chromium, address), token
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait_until_up(address: str) -> None:
    session = requests.Session()
    retry = requests.adapters.Retry(connect=20, backoff_factor=0.05)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=retry))
    assert session.get(f"{address}healthz", timeout=10).json() == {"status": "ok"}


def test_a_person_signs_in_decides_and_signs_out_under_the_prefix(
    behind_nginx: tuple[Page, str],
) -> None:
    page, token = behind_nginx
    page.driver.get(f"{page.url}docs")
    page.complaints()  # discard the 401 of the first page
    sign_in(page, token)
    assert page.driver.current_url.rstrip("?") == f"{page.url}docs"
    page.wait_for_api_reference()
    (cookie,) = page.driver.get_cookies()
    assert cookie["path"] == "/risk"
    page.at(".brand").send_keys(Keys.ENTER)
    page.wait_for("return document.getElementById('loan-title') !== null")
    assert page.driver.current_url == page.url
    page.decide()
    assert page.probability() > 0
    assert page.js("return getComputedStyle(document.querySelector('main')).overflowWrap") == (
        "anywhere"  # the styles are loaded
    )
    assert page.complaints() == []
    loaded = page.js("return performance.getEntriesByType('resource').map(e => e.name)")
    assert loaded
    assert all(address.startswith((page.url, "data:")) for address in loaded)
    before = page.at("html")
    page.at(".who button").send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert page.text("h1") == "Sign in"
    assert page.driver.current_url == page.url


def test_the_reference_tries_the_api_under_the_prefix(behind_nginx: tuple[Page, str]) -> None:
    page, token = behind_nginx
    page.driver.get(f"{page.url}docs")
    sign_in(page, token)
    page.wait_for_api_reference()
    page.try_prediction()
    assert f"{page.url}v1/predictions" in page.text(".request-url")
    assert '"probability"' in page.text(".live-responses-table")
