"""The known name that a misspelt one most likely means, for a bounded number of comparisons."""

from __future__ import annotations

import difflib
from functools import lru_cache

# For a request: some 0.1 s at most. Callers choose the names, and a body may hold 100,000.
MAX_COMPARISONS = 1_000
# For a run of a command on a whole book: some seconds at most.
MAX_RUN_COMPARISONS = 100_000
# Comparing two texts takes longer than their length squared; no usual name is as long as this.
_MAX_LETTERS = 60


class Suggestions:
    """Suggests known names for unknown ones, as long as its comparisons last.

    A request has one of these, and so has a run of a command. Once its comparisons are used up it
    suggests nothing more; what it was asked before costs nothing. It belongs to one thread.
    """

    def __init__(self, comparisons: int = MAX_COMPARISONS) -> None:
        self._left = comparisons
        self._answers: dict[tuple[str, tuple[str, ...]], str | None] = {}

    def nearest(self, name: str, candidates: tuple[str, ...]) -> str | None:
        """The candidate that a misspelt name most likely means, if any is near."""
        question = name.lower()[:_MAX_LETTERS], candidates
        # One that can be asked is compared with every candidate, however many there are.
        if question not in self._answers and self._left > 0:
            self._left -= len(candidates)
            self._answers[question] = _nearest(*question)
        return self._answers.get(question)


# A new channel brings the same few unknown names and levels with every request.
@lru_cache(maxsize=4096)
def _nearest(lowered: str, candidates: tuple[str, ...]) -> str | None:
    by_lowered = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(lowered, by_lowered, n=1, cutoff=0.5)
    return by_lowered[found[0]] if found else None
