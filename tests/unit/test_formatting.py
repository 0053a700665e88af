"""Shares in percent, and probabilities in words."""

from __future__ import annotations

import itertools
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.formatting import percent, probability_in_words

# Probabilities of versions are multiples of 1e-9 between 0 and 1.
PROBABILITIES = st.integers(1, 10**9 - 1).map(lambda billionths: billionths / 1e9)
# Every fraction that the words may state.
STATED = sorted(
    {Fraction(count, n) for n in range(2, 1001) for count in (1, n - 1)}
    | {Fraction(tenths, 10) for tenths in range(1, 10)}
)


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0 %"),
        (0.00001, "< 0.01 %"),
        (0.0218, "2.18 %"),
        (0.1234, "12.3 %"),
        (0.9912, "99.12 %"),
        (0.99995, "> 99.99 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_never_shown_as_none_or_all_if_it_is_not(share: float, shown: str) -> None:
    assert percent(share) == shown


def fraction_in(words: str) -> Fraction:
    """Return the fraction that the words state; below and above all others for the extremes."""
    if words == "fewer than one in 1,000 such loans is late":
        return Fraction(0)
    if words == "more than 999 in 1,000 such loans are late":
        return Fraction(1)
    found = re.fullmatch(r"of (\d+) such loans (one is|(\d+) are) late", words.replace(",", ""))
    assert found is not None, words
    return Fraction(int(found[3] or 1), int(found[1]))


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.066, "of 15 such loans one is late"),
        (0.001, "of 1,000 such loans one is late"),
        (0.0009, "fewer than one in 1,000 such loans is late"),
        (0.022, "of 45 such loans one is late"),
        (0.25, "of 4 such loans one is late"),
        (0.42, "of 10 such loans 4 are late"),
        (0.5, "of 2 such loans one is late"),
        (0.6, "of 10 such loans 6 are late"),
        (0.75, "of 4 such loans 3 are late"),
        (0.95, "of 20 such loans 19 are late"),
        (0.9995, "more than 999 in 1,000 such loans are late"),
    ],
)
def test_a_probability_is_said_as_a_count_of_loans(probability: float, words: str) -> None:
    assert probability_in_words(probability) == words


@given(PROBABILITIES)
def test_the_fraction_is_the_closest_that_can_be_stated(probability: float) -> None:
    stated = fraction_in(probability_in_words(probability))
    if 0 < stated < 1:
        assert stated in STATED
        closest = min(abs(float(other) - probability) for other in STATED)
        assert abs(float(stated) - probability) <= closest + 1e-12
    else:
        assert (probability < 0.001) if stated == 0 else (probability > 0.999 - 1e-12)


@given(st.lists(PROBABILITIES, min_size=2, max_size=20))
def test_a_higher_probability_never_states_a_lower_fraction(probabilities: list[float]) -> None:
    stated = [fraction_in(probability_in_words(each)) for each in sorted(probabilities)]
    assert all(low <= high for low, high in itertools.pairwise(stated))
