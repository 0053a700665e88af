"""Parsing of report pages, and the check that a page is self-contained."""

from __future__ import annotations

import re
from html.parser import HTMLParser

FORBIDDEN_TAGS = frozenset({"script", "link", "img", "iframe", "form", "object"})


class ReportPage(HTMLParser):
    """The tags, ids, links and visible text of a page, and the tags that are not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.pieces: list[str] = []
        self.feed(html)

    @property
    def text(self) -> str:
        """The text as it is written."""
        return "".join(self.pieces)

    @property
    def words(self) -> str:
        """The text with one space between words, and between the texts of two elements."""
        return " ".join(" ".join(self.pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the tag; a strict Content-Security-Policy forbids handlers and styles."""
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name != "style"
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the tag, which closes itself."""
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Check that the last open tag is closed."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Record the text, without that of styles."""
        if "style" not in self.open:
            self.pieces.append(data)


def check_self_contained(html: str) -> ReportPage:
    """Check that a page is valid, loads nothing, and links only to its own sections."""
    page = ReportPage(html)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert not page.tags & FORBIDDEN_TAGS
    assert "@import" not in html
    assert not re.search(r"https?:|url\((?!#)", html)
    assert all(link.startswith("#") and link[1:] in page.ids for link in page.links)
    return page
