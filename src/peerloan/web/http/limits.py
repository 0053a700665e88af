"""Limits of requests and pages, for the views and for their OpenAPI description alike."""

from __future__ import annotations

MAX_BODY_BYTES = 5_000_000
# Loans of one request, and names of one loan.
MAX_LOANS = 10_000
MAX_NAMES = 1_000
MAX_OUTCOMES = 10_000
# Wrong values that an answer names: one for each loan that a request may hold. The loans after them
# are not checked. A request of 30 kB can hold many times as many wrong values.
MAX_PROBLEMS = 10_000
# Characters of the reason for a promotion.
MAX_WHY = 1_000
# Decisions or events of a page.
DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE = 100, 1_000
# Days of drift figures.
MAX_DRIFT_DAYS = 366
