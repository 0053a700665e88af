"""The score shift of a new version from the one that a person chose."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from helpers.stores import VersionOf
from peerloan.book import open_book
from peerloan.model import LevelTable, Scorecard
from peerloan.registry import Bundle, Store
from peerloan.training.compile.scorecard import rescaled
from peerloan.worker.retraining.score_shift import (
    MAX_FACTOR,
    MAX_GROUP_FACTOR,
    MIN_RANK_CORRELATION,
    ScoreShift,
    measure_score_shift,
)


class Versions:
    """A version, and variants with log-odds that are shifted, scaled or changed in one table."""

    def __init__(self, store: Store, version: str, book: Path) -> None:
        self._store, self._version, self._book = store, version, open_book(book)

    def _load(self) -> tuple[Bundle, Scorecard]:
        bundle = self._store.load(self._version)
        assert isinstance(bundle.model, Scorecard)
        return bundle, bundle.model

    def scaled(self, slope: float, intercept: float) -> ScoreShift:
        """Measure the shift to the version with scaled and shifted log-odds."""
        after, card = self._load()
        after.model = rescaled(card, slope, intercept)
        return measure_score_shift(self._load()[0], after, self._book)

    def shifted_of(self, name: str, level: str, by: float) -> ScoreShift:
        """Measure the shift to the version with other points for one level of a feature."""
        after, card = self._load()
        tables = list(card.tables)
        i = next(i for i, table in enumerate(tables) if table.feature == name)
        table = tables[i]
        assert isinstance(table, LevelTable)
        points = [
            point + by * (own == level)
            for own, point in zip(table.levels, table.points, strict=True)
        ]
        tables[i] = msgspec.structs.replace(table, points=tuple(points))
        after.model = msgspec.structs.replace(card, tables=tuple(tables))
        return measure_score_shift(self._load()[0], after, self._book)


@pytest.fixture
def versions(store: Store, version_of: VersionOf, sample_book: Path) -> Versions:
    return Versions(store, version_of("additive"), sample_book)


def test_the_same_version_has_no_score_shift(versions: Versions, version_of: VersionOf) -> None:
    found = versions.scaled(1, 0)
    assert (found.against, found.factor, found.group_factor, found.group) == (
        *(version_of("additive"), 1, 1, "all loans"),
    )
    assert found.rank_correlation == pytest.approx(1)
    assert not found.is_too_far


@pytest.mark.parametrize(
    ("slope", "times", "too_far"),
    [(1, 1.8, False), (1, 0.6, False), (0.9, 1.2, False), (1, 2.3, True), (1, 0.45, True)],
)
def test_a_small_change_of_the_level_is_not_too_far(
    versions: Versions, slope: float, times: float, too_far: bool
) -> None:
    found = versions.scaled(slope, math.log(times))
    assert found.is_too_far == too_far, found
    assert found.as_json()["too_far"] == too_far


def test_inverted_or_constant_scores_are_too_far(versions: Versions) -> None:
    turned = versions.scaled(-1, -7)
    assert turned.rank_correlation == pytest.approx(-1)
    assert turned.is_too_far
    # The mean is about the same, but all loans have about the same probability.
    flat = versions.scaled(0.001, -3.7)
    assert 1 / MAX_FACTOR < flat.factor < MAX_FACTOR
    assert flat.rank_correlation > MIN_RANK_CORRELATION
    assert flat.group.startswith("probability ")
    assert flat.is_too_far
    assert versions.scaled(0, -3.7).is_too_far, "equal scores have no ranks"


def test_a_shift_of_one_group_is_too_far(versions: Versions) -> None:
    found = versions.shifted_of("home_ownership", "OWN", 1.8)
    assert found.factor < MAX_FACTOR
    assert found.rank_correlation > MIN_RANK_CORRELATION
    assert found.group_factor > MAX_GROUP_FACTOR
    assert found.group == "home_ownership OWN"
    assert found.is_too_far
    assert "times, home_ownership OWN), and the rank correlation is 0." in found.sentence()
    assert not versions.shifted_of("home_ownership", "OWN", 0.8).is_too_far
