"""The page in a browser: the form, the paste box, safety, accessibility and waiting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import requests
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from helpers.page import Page, browser
from helpers.service import Serve
from peerloan.loan import default_definition
from peerloan.registry import Store

pytestmark = pytest.mark.longer

FIELDS = default_definition().fields
# The client's two examples.
ON_TIME = {
    "loan_amnt": 100,
    "int_rate": 0.02039,
    "purpose": "credit_card",
    "grade": "A",
    "annual_inc": 80000,
    "revol_util": 0.05,
    "emp_length": "10+ years",
    "dti": 1.46,
    "delinq_2yrs": 0,
    "home_ownership": "RENT",
}
LATE = {
    "loan_amnt": 10000,
    "int_rate": 0.6,
    "purpose": "credit_card",
    "grade": "D",
    "annual_inc": 20000,
    "revol_util": 0.85,
    "emp_length": "1 year",
    "dti": 42,
    "delinq_2yrs": 4,
    "home_ownership": "RENT",
}
SCRIPT = "<script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>\"'&"


# The form


def test_the_form_asks_for_every_field_of_the_definition(page: Page) -> None:
    for field in FIELDS:
        element = page.input(field.name)
        label = page.text(f'label[for="{element.get_attribute("id")}"]')
        assert field.label in label
        assert ("may be empty" in label) == field.missing
        if field.is_number:
            assert float(page.value(field.name)) == field.default
            around = page.text(f"div:has(> [name='field.{field.name}'])")
            assert field.unit in around
            assert ("fraction" in around) == field.percent
        else:
            assert page.value(field.name) == field.default
            offered = [option.get_attribute("value") for option in Select(element).options]
            assert [level for level in field.levels if level not in offered] == []
            assert ("" in offered) == field.missing
        described = str(element.get_attribute("aria-describedby")).split()
        description = page.text(f"#{described[-1]}")
        assert field.help in description
        if field.is_number:
            seen = re.search(r"Seen in training: (\S+) to (\S+)\.$", description)
            assert seen is not None
            assert all(len(end) <= 8 for end in seen.groups()), (
                "an end of the range has more digits than a person would write"
            )
        has_unit = bool(field.unit or field.percent)
        assert len(described) == 1 + has_unit
        if has_unit:
            fraction = "fraction" if field.percent else ""
            assert page.text(f"#{described[0]}") == f"{fraction} {field.unit}".strip()


def test_a_decision_shows_its_reasons(page: Page) -> None:
    page.fill(LATE)
    page.decide()

    probability = page.probability()
    assert page.text("#late") in ("Yes", "No")
    assert page.text("#threshold") == "2.45 %"
    assert (page.text("#late") == "Yes") == (probability >= 2.45)
    assert page.text("#band") in ("low", "medium", "high", "very high")
    reasons = page.all("#reasons li")
    assert 1 <= len(reasons) <= 4
    widths = []
    for reason in reasons:
        bar = reason.find_element(By.CSS_SELECTOR, "svg .raises")
        widths.append(bar.size["width"])
        assert bar.size["height"] > 2
        assert reason.text.endswith(".")
    assert widths == sorted(widths, reverse=True)
    assert "Interest rate: 60 % a year, higher than the usual" in page.text("#reasons")
    assert "Interest rate: 60 % a year is outside the range" in page.text("#warnings")
    # The entered values remain.
    assert {field.name: page.value(field.name) for field in FIELDS} == {
        name: str(value) for name, value in LATE.items()
    }


def test_the_title_has_the_result(page: Page) -> None:
    assert page.driver.title == "PeerLoan Risk"
    page.fill(LATE)
    page.decide()
    assert page.text("#late") == "Yes"
    assert page.driver.title == "Late: Yes · PeerLoan Risk"
    page.fill(ON_TIME)
    page.decide()
    assert page.driver.title == "Late: No · PeerLoan Risk"
    page.fill({"dti": "x"})
    page.decide()
    assert page.driver.title == "Not decided: PeerLoan Risk"
    page.paste("hello")
    assert page.driver.title == "Not decided: PeerLoan Risk"
    page.paste(json.dumps(LATE | {"anual_inc": 1}))
    assert page.driver.title == "Not decided: PeerLoan Risk"


def test_a_question_stands_above_the_decision_and_its_button_decides_again(page: Page) -> None:
    page.fill(ON_TIME | {"revol_util": 40})
    page.decide()
    assert page.driver.title == "Check first · PeerLoan Risk"
    assert "40 is read as 4,000 %. Did you mean 0.40?" in page.text("#questions")
    assert page.text("#late") == "check the value first"

    # What was changed since is kept.
    page.fill({"dti": 20})
    before = page.at("html")
    page.at("#questions button").send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert (page.value("revol_util"), page.value("dti")) == ("0.4", "20")
    assert page.text("#late") in ("Yes", "No")
    assert not page.all("#questions")


def test_a_list_of_what_is_wrong_has_the_focus(page: Page) -> None:
    page.fill({"dti": "x"})
    page.decide()

    assert page.driver.switch_to.active_element.get_attribute("id") == "result"


def test_of_the_clients_two_examples_the_second_is_riskier(page: Page) -> None:
    page.fill(ON_TIME)
    page.decide()
    first = page.probability()
    assert page.text("#late") == "No"

    page.open().fill(LATE)
    page.decide()
    assert page.probability() > 3 * first


def test_errors_are_next_to_their_fields_and_other_values_remain(page: Page) -> None:
    page.fill(LATE | {"int_rate": "130%", "annual_inc": "", "dti": "much", "loan_amnt": -5})
    page.decide()

    assert page.wrong() == {"int_rate", "annual_inc", "dti", "loan_amnt"}
    assert "0.1306 for 13.06 %" in page.error("int_rate")
    assert "Given: '130%', read as 1.3." in page.error("int_rate")
    assert "above 0" in page.error("annual_inc")
    assert "Given: nothing." in page.error("annual_inc")
    assert "Given: 'much'." in page.error("dti")
    assert "Given: -5." in page.error("loan_amnt")
    values = {name: page.value(name) for name in LATE}
    assert values == {name: str(value) for name, value in LATE.items()} | {
        "int_rate": "130%",
        "annual_inc": "",
        "dti": "much",
        "loan_amnt": "-5",
    }
    assert not page.all("#probability")
    # The summary links to each error.
    links = page.all("#result a")
    assert [link.text for link in links] == [
        field.label for field in FIELDS if field.name in page.wrong()
    ]
    for link in links:
        assert page.at(f"[id='{str(link.get_attribute('href')).partition('#')[2]}']")

    page.fill({"int_rate": 0.1306, "annual_inc": 20000, "dti": 42, "loan_amnt": 10000})
    page.decide()
    assert page.probability() > 0


def test_optional_fields_may_be_empty(page: Page) -> None:
    page.fill({"revol_util": "", "emp_length": ""})
    page.decide()

    assert page.wrong() == set()
    assert page.probability() > 0


# The box


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(LATE),
        json.dumps({name: [value] for name, value in LATE.items()}),
        repr({name: [value] for name, value in LATE.items()}),
        repr(LATE).replace(", ", ",  "),
        json.dumps([LATE]),
    ],
    ids=["JSON", "JSON columns", "the client's dictionary", "a dictionary", "a list of one"],
)
def test_a_pasted_loan_is_decided_on(page: Page, text: str) -> None:
    page.paste(text)

    pasted = page.probability()
    assert page.value("int_rate") == "0.6"
    assert page.value("grade") == "D"
    assert page.at("#pasted").get_property("value") == text
    page.open().fill(LATE)
    page.decide()
    assert page.probability() == pasted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "neither JSON, nor a Python dictionary"),
        ("", "Nothing was pasted"),
        ("__import__('os').getcwd()", "neither JSON, nor a Python dictionary"),
        ("[1, 2]", "Expected one loan"),
        ('{"dti": 1, "dti": 2}', "dti: expected each name once, given 2 values."),
        ('{"dti": [1, 2]}', "2 values of 'dti'"),
    ],
)
def test_a_bad_paste_has_its_error_at_the_box(page: Page, text: str, message: str) -> None:
    page.paste(text)

    assert page.wrong() == {"pasted"}
    assert message in page.text("#pasted-error")
    assert page.at("#pasted").is_displayed()
    assert page.at("#pasted").get_property("value") == text
    assert not page.all("#probability")


def test_the_error_of_a_bad_paste_is_in_view(page: Page) -> None:
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.cdp("Emulation.setDeviceMetricsOverride", **size)
    try:
        page.paste("hello")
        for selector in ("#pasted", "#pasted-error"):
            rectangle = f"document.querySelector('{selector}').getBoundingClientRect()"
            in_view = (
                f"const at = {rectangle}; return at.height > 0 && at.top >= 0 && at.left >= 0 "
                "&& at.bottom <= innerHeight && at.right <= innerWidth"
            )
            page.wait_for(in_view)
        assert page.js("return [innerWidth, innerHeight]") == [1280, 900]
    finally:
        page.cdp("Emulation.clearDeviceMetricsOverride")


def test_a_paste_without_a_value_names_the_field(page: Page) -> None:
    page.paste(json.dumps(LATE | {"dti": []}))

    assert page.text("#pasted-error") == "Expected one value of 'dti', given an empty list."


def test_a_pasted_loan_with_wrong_values_has_its_errors_at_the_fields(page: Page) -> None:
    page.paste(json.dumps(LATE | {"dti": "x", "anual_inc": 5, "delinq_2yrs": None}))

    assert page.wrong() == {"dti", "delinq_2yrs"}
    assert "Given: 'x'." in page.error("dti")
    assert "anual_inc" in page.text("#result")
    assert "did you mean annual_inc?" in page.text("#result")


# Safety


def test_html_in_values_is_text(page: Page) -> None:
    page.paste(json.dumps(LATE | {"purpose": SCRIPT, "loan_id": SCRIPT}))
    assert page.value("purpose") == SCRIPT
    assert SCRIPT in page.text("#warnings") or "<script>" in page.text("#warnings")
    page.paste(json.dumps(LATE | {"dti": SCRIPT, SCRIPT: 1}))
    assert page.value("dti") == SCRIPT
    assert "<script>" in page.text("#result")
    page.paste("</textarea>" + SCRIPT)
    assert page.at("#pasted").get_property("value") == "</textarea>" + SCRIPT
    page.open().fill({"dti": '" autofocus onfocus="window.stolen = 1" ' + SCRIPT})
    page.decide()

    assert page.js("return window.stolen") is None
    assert not page.all("main script, main img")


def test_nothing_comes_from_or_goes_to_another_site(page: Page) -> None:
    page.fill(LATE)
    page.decide()

    loaded = page.js("return performance.getEntries().map(entry => entry.name)")
    addresses = [name for name in loaded if "://" in name]
    assert len([name for name in addresses if name.split("?")[0].endswith((".css", ".js"))]) >= 3
    assert all(name.startswith(page.url) for name in addresses), addresses
    links = re.findall(r'(?:src|href|action)="([^"#]+)"', page.driver.page_source)
    assert len(links) >= 6
    assert all(re.match(r"/(?!/)", link) for link in links), links
    assert page.js("return document.cookie") == ""


# Accessibility and screens


@pytest.mark.parametrize("state", ["empty", "decided", "wrong"])
def test_names_and_descriptions_are_right_for_a_screen_reader(page: Page, state: str) -> None:
    if state != "empty":
        page.fill(LATE if state == "decided" else {"dti": "x"})
        page.decide()

    ids = [str(element.get_attribute("id")) for element in page.all("[id]")]
    assert len(ids) == len(set(ids))
    controls = page.all("main :is(input, select, textarea)")
    assert len(controls) == len(FIELDS) + 1
    for control in controls:
        assert len(page.all(f'label[for="{control.get_attribute("id")}"]')) == 1
        for described in str(control.get_attribute("aria-describedby")).split():
            assert described in ids
    for element in page.all("[aria-labelledby]"):
        assert element.get_attribute("aria-labelledby") in ids
    assert len(page.all("h1")) == 1
    assert len(page.all("main")) == 1
    assert page.at("html").get_attribute("lang") == "en"
    for image in page.all("svg"):
        hidden = image.get_attribute("aria-hidden") == "true"
        assert hidden or image.get_attribute("aria-label")
    assert bool(page.all("[role=alert]")) == (state == "wrong")


def test_the_keyboard_is_enough(page: Page) -> None:
    page.js("document.querySelector('#find').focus()")
    reached = []
    for _ in range(len(FIELDS) + 1):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.driver.switch_to.active_element.get_attribute("name"))
    assert reached == [*(f"field.{field.name}" for field in FIELDS), "action"]

    before = page.at("html")
    page.input("dti").send_keys(Keys.ENTER)
    page.wait_until_left(before)
    assert page.probability() > 0


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1280, "light")])
def test_it_fits_the_screen_and_the_theme(page: Page, width: int, theme: str) -> None:
    with page.on_screen(width, theme):
        page.open()
        page.check_fit(theme)
        page.fill(LATE)
        page.decide()
        page.check_fit(theme)
        page.fill({"int_rate": "13.06%", "dti": "x" * 150})
        page.decide()
        page.check_fit(theme)
        page.paste("{" + "x" * 300)
        page.check_fit(theme)


def test_it_works_without_javascript(url: str, tmp_path: Path, chromium: webdriver.Chrome) -> None:
    driver = browser(tmp_path / "profile", "--blink-settings=scriptEnabled=false")
    try:
        page = Page(driver, url).open()
        assert "bs-theme" not in page.driver.page_source.partition("<head>")[0]
        page.fill(LATE)
        page.decide()
        without = page.probability()
        assert page.all("#reasons li")
        page.fill({"dti": "x"})
        page.decide()
        assert page.wrong() == {"dti"}
        page.paste(repr({name: [value] for name, value in LATE.items()}))
        assert page.probability() == without
    finally:
        driver.quit()


# Which model is served


def test_a_version_trained_on_the_sample_is_marked(page: Page) -> None:
    assert "trained on the built-in sample" in page.text("[role=note]")
    page.fill({"dti": "x"})
    page.decide()
    assert "trained on the built-in sample" in page.text("[role=note]")
    page.open().decide()
    assert "trained on the built-in sample" in page.text("[role=note]")
    assert "trained on the built-in sample" in page.text("#warnings")


def test_the_page_waits_for_its_first_champion(
    store: Store, serve: Serve, chromium: webdriver.Chrome
) -> None:
    service = serve(store)
    page = Page(chromium, f"{service.url}/").open()
    assert "No model version is being served yet" in page.text("h1")
    assert "peerloan train" in page.text("main")
    assert requests.post(page.url, data={"action": "form"}, timeout=5).status_code == 503

    store.promote(store.versions()[0])
    # The page reloads by itself.
    WebDriverWait(page.driver, 10).until(lambda _: page.all('[name="field.dti"]'))
    assert store.versions()[0] in page.text(".topbar")
    assert not page.all("meta[http-equiv=refresh]")


def test_the_waiting_page_shows_why_a_champion_was_refused(
    store: Store, serve: Serve, chromium: webdriver.Chrome
) -> None:
    version = store.promote(store.versions()[0]).champion
    manifest = store.root / "versions" / str(version) / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(content[:-9])
    service = serve(store)
    page = Page(chromium, f"{service.url}/").open()
    refused = requests.get(f"{service.url}/readyz", timeout=5).json()["refused"]
    assert "manifest.json" in refused
    assert page.text("[role=alert]") == f"The champion was refused: {refused}"
    assert "peerloan models promote VERSION" in page.text("main")
    assert "peerloan train" not in page.text("main")
    assert page.at("meta[http-equiv=refresh]").get_attribute("content") == "2"

    manifest.write_bytes(content)
    WebDriverWait(page.driver, 15).until(lambda _: page.all('[name="field.dti"]'))
    assert str(version) in page.text(".topbar")
