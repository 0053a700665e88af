"""A table of another lender, and a parser of the page's form for it."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from typing import Any

ROWS = 800
LABEL = "Rückzahlung"
STATUS = ("< 100 DM", "100 <= x < 200 DM", ">= 200 DM", "kein Konto")
PURPOSES = ("Möbel & Küche", "Auto (neu)", "Auto (gebraucht)", 'Radio/"TV"', "Sonstiges")
EMPLOYED = ("arbeitslos", "< 1 year", ">= 1 year", ">= 4 years")


def table(rows: int = ROWS) -> list[dict[str, Any]]:
    """Loans of a lender with other columns, names and levels; about 30 % go bad."""
    draw = random.Random(11)
    loans = []
    for _ in range(rows):
        status, employed = draw.choice(STATUS), draw.choice(EMPLOYED)
        months = draw.choice([6, 9, 12, 18, 24, 36, 48])
        risk = 0.1 + 0.22 * (status == STATUS[0]) + 0.004 * months + 0.1 * (employed == EMPLOYED[0])
        loans.append(
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
    return loans


class Form(HTMLParser):
    """The inputs and selects of a page by name: ids, labels and levels; and its text.

    The frame around the page's main part is left out. A fragment without a frame is read whole.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self.labels: dict[str, str] = {}
        self.levels: dict[str, list[str]] = {}
        self.text = ""
        self._label: str | None = None
        self._select = ""
        self.feed(page[max(page.find("<main"), 0) :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an input or a select by its name, and a label by the id of its input."""
        attributes = {name: value or "" for name, value in attrs}
        if tag == "label":
            self._label = attributes["for"]
        elif tag in ("input", "select"):
            self.ids[attributes["name"]] = attributes["id"]
            self._select = attributes["name"]
        elif tag == "option":
            self.levels.setdefault(self._select, []).append(attributes["value"])

    def handle_endtag(self, tag: str) -> None:
        """End a label."""
        if tag == "label":
            self._label = None

    def handle_data(self, data: str) -> None:
        """Record text, and add it to the open label."""
        self.text += data
        if self._label is not None:
            self.labels[self._label] = self.labels.get(self._label, "") + data
