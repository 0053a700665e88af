"""A browser, the page in it, and the service behind it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from helpers.programs import require
from helpers.service import Service, settings
from helpers.stores import champion_store

CONTRAST = (Path(__file__).parent / "contrast.js").read_text("utf-8")


class Page:
    """The page in a browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def open(self) -> Page:
        """Open the empty form."""
        self.driver.get(self.url)
        return self

    def at(self, selector: str) -> WebElement:
        """The element at a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        """The elements at a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The visible text at a selector."""
        return self.at(selector).text

    def input(self, name: str) -> WebElement:
        """A field's input or select."""
        return self.at(f'[name="field.{name}"]')

    def value(self, name: str) -> str:
        """The value of a field's input."""
        return str(self.input(name).get_property("value"))

    def fill(self, loan: dict[str, Any]) -> None:
        """Enter or select the values of a loan."""
        for name, value in loan.items():
            element = self.input(name)
            if element.tag_name == "select":
                Select(element).select_by_value(str(value))
            else:
                element.clear()
                element.send_keys(str(value))

    def decide(self, button: str = "form") -> None:
        """Press a button, and wait for the next page."""
        before = self.at("html")
        # The Enter key, not a click: a click fails while the page scrolls.
        self.at(f"button[value={button}]").send_keys(Keys.ENTER)
        self.wait_until_left(before)

    def wait_until_left(self, before: WebElement) -> None:
        """Wait until the page of this element is replaced."""
        WebDriverWait(self.driver, 10).until(lambda _: self.at("html").id != before.id)
        WebDriverWait(self.driver, 10).until(lambda _: self.all("main"))

    def paste(self, text: str) -> None:
        """Paste text into the box, and submit it."""
        if self.at("details").get_property("open") is not True:
            self.at("summary").send_keys(Keys.ENTER)
        box = self.at("#pasted")
        box.clear()
        box.send_keys("")  # focus the box
        self.cdp("Input.insertText", text=text)
        self.decide("paste")

    def error(self, name: str) -> str:
        """The error message of a field's input, which must be marked as wrong."""
        element = self.input(name)
        described = str(element.get_attribute("aria-describedby")).split()
        (error,) = (id_ for id_ in described if id_.endswith("-error"))
        assert element.get_attribute("aria-invalid") == "true"
        return self.text(f"#{error}")

    def wrong(self) -> set[str]:
        """The names of the inputs that are marked as wrong."""
        inputs = self.all("[aria-invalid=true]")
        return {str(e.get_attribute("name")).removeprefix("field.") for e in inputs}

    def probability(self) -> float:
        """The displayed probability, in percent."""
        text = self.text("#probability")
        assert text.endswith(" %")
        return float(text.removesuffix(" %").removeprefix("under "))

    def open_api_reference(self) -> None:
        """Open the API reference, and wait until it lists the operations."""
        self.driver.get(f"{self.url}docs")
        self.wait_for_api_reference()

    def wait_for_api_reference(self) -> None:
        """Wait until the API reference lists the operations."""
        self.wait_for("return document.querySelectorAll('.opblock').length >= 6")

    def open_prediction_operation(self) -> None:
        """Expand the operation that predicts, in the API reference."""
        self.js("document.querySelector('[id$=-predict] .opblock-summary-control').click()")
        self.wait_for("return document.querySelector('button.execute') !== null")

    def try_prediction(self) -> None:
        """Execute a prediction in the API reference, and wait for the response."""
        self.open_prediction_operation()
        # On a busy machine a click may come before the page listens to it.
        self.wait_for(
            "const done = document.querySelector('.live-responses-table .microlight') !== null;"
            "if (!done) document.querySelector('button.execute').click(); return done"
        )

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of a script."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, script: str) -> None:
        """Wait until a script returns true, for example at the end of smooth scrolling."""
        WebDriverWait(self.driver, 20).until(lambda _: self.js(script))

    def cdp(self, command: str, **parameters: Any) -> None:
        """Run a command of the Chrome DevTools Protocol."""
        self.driver.execute_cdp_cmd(command, parameters)

    @contextmanager
    def on_screen(self, width: int, theme: str) -> Iterator[None]:
        """Emulate a screen of this width in pixels and a preferred colour theme."""
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        preference = [{"name": "prefers-color-scheme", "value": theme}]
        self.cdp("Emulation.setDeviceMetricsOverride", **size)
        self.cdp("Emulation.setEmulatedMedia", features=preference)
        try:
            yield
        finally:
            self.cdp("Emulation.clearDeviceMetricsOverride")
            self.cdp("Emulation.setEmulatedMedia", features=[])

    def check_fit(self, theme: str) -> None:
        """Check that the page fits the screen, has the theme's colours, and shows the result."""
        root = "document.documentElement"
        assert self.js(f"return {root}.scrollWidth <= {root}.clientWidth")
        background = self.js("return getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", background)[:3])) > 3 * 128
        assert light == (theme == "light")
        if self.all("#result"):
            top = "document.getElementById('result').getBoundingClientRect().top"
            self.wait_for(f"return {top} >= 0 && {top} < innerHeight")

    def faint_texts(self) -> list[tuple[float, str, str]]:
        """Texts whose contrast is below 4.5: the ratio, the element, and the text."""
        return [tuple(row) for row in self.js(CONTRAST)]

    def overlaps(self, selector: str) -> list[tuple[str, str]]:
        """Pairs of texts at a selector that overlap on the screen."""
        boxes = self.js(
            "return [...document.querySelectorAll(arguments[0])].map(e => {"
            "  const range = document.createRange(); range.selectNodeContents(e);"
            "  const clip = e.getBoundingClientRect(), text = range.getBoundingClientRect();"
            "  const hidden = getComputedStyle(e).overflowX !== 'visible';"
            "  const box = hidden ? clip : text;"
            "  return [e.textContent.trim(), box.left, box.top, box.right, box.bottom];"
            "})",
            selector,
        )
        return [
            (a[0], b[0])
            for a, b in itertools.combinations(boxes, 2)
            if a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
        ]

    def complaints(self) -> list[str]:
        """New messages in the browser's console, except for expected responses with status 422."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [e["message"] for e in entries if "status of 422" not in e["message"]]


def browser(folder: Path, *options: str) -> webdriver.Chrome:
    """A headless Chromium with a fresh profile; skips the test if there is none."""
    binary, driver = require("Chromium", "chromium", "chromedriver")
    chrome_options = webdriver.ChromeOptions()
    chrome_options.binary_location = binary
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1280,1000",
        f"--user-data-dir={folder}",
        *options,
    ):
        chrome_options.add_argument(option)
    chrome_options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=chrome_options, service=webdriver.ChromeService(driver))


@contextmanager
def serving(trained: Path, folder: Path) -> Iterator[str]:
    """The address of a service with the additive version as champion."""
    store = champion_store(trained, folder)
    service = Service(store.root, folder / "server.log", workers=1)
    try:
        service.wait_for(lambda: service.serving() is not None)
        yield f"{service.url}/"
    finally:
        service.stop()


def token_command(tmp_path: Path, *arguments: str) -> str:
    """The output of `peerloan token …`, for the store in this folder."""
    command = [sys.executable, "-m", "peerloan", "token", *arguments]
    environment = os.environ | settings(tmp_path / "store")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def sign_in(page: Page, with_token: str) -> None:
    """Enter a token in the sign-in form, and wait for the next page."""
    before = page.at("html")
    page.at("#token").send_keys(with_token, Keys.ENTER)
    page.wait_until_left(before)
