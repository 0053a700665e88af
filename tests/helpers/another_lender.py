"""Another lender's table, and the form that the page makes of it."""

from __future__ import annotations

import csv
import random
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ROWS = 800
LABEL = "Rückzahlung"
STATUS = ("< 100 DM", "100 <= x < 200 DM", ">= 200 DM", "kein Konto")
PURPOSES = ("Möbel & Küche", "Auto (neu)", "Auto (gebraucht)", 'Radio/"TV"', "Sonstiges")
EMPLOYED = ("arbeitslos", "< 1 year", ">= 1 year", ">= 4 years")


def table(rows: int = ROWS) -> list[dict[str, Any]]:
    """Loans of a lender in another country and another time; about 30 % go bad."""
    draw = random.Random(11)
    made = []
    for _ in range(rows):
        status, employed = draw.choice(STATUS), draw.choice(EMPLOYED)
        months = draw.choice([6, 9, 12, 18, 24, 36, 48])
        risk = 0.1 + 0.22 * (status == STATUS[0]) + 0.004 * months + 0.1 * (employed == EMPLOYED[0])
        made.append(
            {
                "checking.status": status,
                "Duration (months)": months,
                "credit.amount": draw.randint(250, 18_000) + 0.5,
                "Zweck": draw.choice(PURPOSES),
                "employed since": employed,
                "Größe_m²": "" if draw.random() < 0.1 else draw.randint(20, 180),
                "age": draw.randint(19, 75),
                LABEL: "bad" if draw.random() < risk else "good",
            }
        )
    return made


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


class Form(HTMLParser):
    """A page's inputs and selects with their labels, the levels of the selects, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.levels: dict[str, list[str]] = {}
        self.text = ""
        self._label: str | None = None
        self._select = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An input or a select is kept by its name, a label by its input's id."""
        given = {name: value or "" for name, value in attrs}
        if tag == "label":
            self._label = given["for"]
        elif tag in ("input", "select"):
            self.ids[given["name"]] = given["id"]
            self._select = given["name"]
        elif tag == "option":
            self.levels.setdefault(self._select, []).append(given["value"])

    def handle_endtag(self, tag: str) -> None:
        """The end of a label."""
        if tag == "label":
            self._label = None

    def handle_data(self, data: str) -> None:
        """Text, a label's or any other."""
        self.text += data
        if self._label is not None:
            self.labels[self._label] = self.labels.get(self._label, "") + data
