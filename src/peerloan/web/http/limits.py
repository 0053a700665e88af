"""Limits of requests and pages, for both the views and the OpenAPI document."""

from __future__ import annotations

MAX_BODY_BYTES = 5_000_000
# Most loans in a request, and most names in a loan.
MAX_LOANS = 10_000
MAX_NAMES = 1_000
MAX_OUTCOMES = 10_000
# Checking a request stops after this many wrong values: as many as a request may have loans. A
# request of 30 kB can have many times as many, and each takes space in the response.
MAX_PROBLEMS = 10_000
# Most characters of the reason for a promotion.
MAX_WHY = 1_000
# Most decisions or events in a page.
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1_000
# Most days of drift figures.
MAX_DRIFT_DAYS = 366
