"""Suggestions for misspelt names, with a limited number of comparisons."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from peerloan.book import check_columns, open_book
from peerloan.loan import (
    MAX_COMPARISONS,
    MAX_RUN_COMPARISONS,
    Checks,
    Definition,
    Field,
    Label,
    Suggestions,
    default_definition,
)

NAMES = default_definition().names


class Counted(str):
    """A candidate that counts how often one like it was looked at."""

    looked_at = 0

    def lower(self) -> str:
        Counted.looked_at += 1
        return super().lower()


@pytest.fixture
def candidates() -> tuple[str, ...]:
    """The names of PeerLoan's fields, counted."""
    Counted.looked_at = 0
    return tuple(map(Counted, NAMES))


def anagrams(count: int) -> list[str]:
    """Different names that are hard to tell from a field's."""
    shuffled = random.Random(8)
    letters = "".join(NAMES[:3])
    return ["".join(shuffled.sample(letters, len(letters))) for _ in range(count)]


def test_the_nearest_name_is_suggested_if_any_is_near() -> None:
    suggestions = Suggestions()

    assert suggestions.nearest("anual_inc", tuple(NAMES)) == "annual_inc"
    assert suggestions.nearest("ANNUAL_INC", tuple(NAMES)) == "annual_inc"
    assert suggestions.nearest("colour_of_hair", tuple(NAMES)) is None


def test_no_names_are_compared_once_the_budget_is_spent(
    candidates: tuple[str, ...],
) -> None:
    suggestions = Suggestions()
    for name in anagrams(5_000):
        suggestions.nearest(name, candidates)

    assert 0 < Counted.looked_at <= MAX_COMPARISONS + len(candidates)


def test_a_repeated_name_costs_nothing(
    candidates: tuple[str, ...],
) -> None:
    suggestions = Suggestions(comparisons=2 * len(candidates))
    for _ in range(1_000):
        assert suggestions.nearest("anual_income", candidates) == "annual_inc"
    assert suggestions.nearest("home_owner", candidates) == "home_ownership"
    assert Counted.looked_at == 2 * len(candidates)

    # Nothing is left.
    assert suggestions.nearest("purposes", candidates) is None
    assert suggestions.nearest("anual_income", candidates) == "annual_inc"


def test_only_the_first_letters_of_long_names_are_compared() -> None:
    # Of these two any comparison takes longer than their length squared.
    suggestions = Suggestions()

    assert suggestions.nearest("ab" * 30_000, ("ba" * 100, "annual_inc")) is None


def test_all_unknown_names_are_refused_even_without_a_suggestion() -> None:
    unknown = [f"anual_inc_{i}" for i in range(900)]
    checked = Checks(default_definition()).loan(dict.fromkeys(unknown, 1))

    refused = {problem.field: problem.expected for problem in checked.problems}
    assert refused.keys() >= set(unknown)
    suggested = [name for name in unknown if "did you mean annual_inc?" in refused[name]]
    assert suggested == unknown[: MAX_COMPARISONS // len(NAMES)]


def test_suggestions_for_a_book_with_many_missing_columns_are_limited(tmp_path: Path) -> None:
    """The definition and the book have many columns each, and only one of these in common."""
    columns = 800
    fields = tuple(Field(f"balance_{i}", "number", "Balance", missing=True) for i in range(columns))
    book = tmp_path / "wide.csv"
    header = ",".join(["known", *(f"ballance_{i}" for i in range(columns))])
    book.write_text(f"{header}\n{','.join(['1'] * (columns + 1))}\n")
    known = Field("known", "number", "Known")
    definition = Definition("wide", Label("bad", "1", "0"), (known, *fields))

    notes = check_columns(definition, open_book(book))

    assert sum("counts as missing" in note for note in notes) == columns
    suggested = sum("did you mean ballance" in note for note in notes)
    # A suggested column is not compared again.
    assert MAX_RUN_COMPARISONS // columns < suggested < columns // 4
