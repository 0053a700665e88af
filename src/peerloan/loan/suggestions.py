"""Suggest the known name for a misspelt one ("did you mean …?"), at a bounded cost."""

from __future__ import annotations

import difflib
from functools import lru_cache

# Limit for a request: about 0.1 s. Clients choose the names, and a body may hold 100,000.
MAX_COMPARISONS = 1_000
# Limit for a command on a whole book: some seconds.
MAX_RUN_COMPARISONS = 100_000
# Comparing two texts takes at least quadratic time, so only this many letters are compared.
_MAX_LETTERS = 60


class Suggestions:
    """Suggests known names for unknown ones, with a budget of comparisons.

    Create one per request or per run of a command. Once the budget is spent there are no new
    suggestions; repeated names cost nothing. Not thread-safe.
    """

    def __init__(self, comparisons: int = MAX_COMPARISONS) -> None:
        self._left = comparisons
        self._nearest_of: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def nearest(self, name: str, candidates: tuple[str, ...]) -> str | None:
        """The candidate most similar to a name; None if none is similar or the budget is spent."""
        key = name.lower()[:_MAX_LETTERS], candidates
        # The name is compared with all candidates, even if that overdraws the budget.
        if key not in self._nearest_of and self._left > 0:
            self._left -= len(candidates)
            self._nearest_of[key] = _nearest(*key)
        return self._nearest_of.get(key)


# Cached: a new client sends the same few unknown names and levels with every request.
@lru_cache(maxsize=4096)
def _nearest(lowered: str, candidates: tuple[str, ...]) -> str | None:
    by_lowered = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(lowered, by_lowered, n=1, cutoff=0.5)
    return by_lowered[matches[0]] if matches else None
