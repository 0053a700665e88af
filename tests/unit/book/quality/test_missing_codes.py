"""Codes for missing are detected, and ordinary columns are not taken for them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerloan.book.quality.missing_codes import Extremes
from peerloan.sample_data import SCENARIOS, batches


def codes_of(values: np.ndarray, parts: int = 1) -> list[float]:
    extremes = Extremes()
    for part in np.array_split(np.asarray(values, dtype=np.float64), parts):
        extremes.add(part)
    codes = extremes.missing_codes()
    return [] if codes is None else [value for value, _ in codes.codes]


def with_codes(values: np.ndarray, *codes: float, share: float = 0.05) -> np.ndarray:
    values = values.astype(np.float64)
    places = np.random.default_rng(1).permutation(len(values))
    each = int(share * len(values))
    for i, code in enumerate(codes):
        values[places[i * each : (i + 1) * each]] = code
    return values


RANDOM = np.random.default_rng(0)
INCOMES = np.round(np.exp(RANDOM.normal(11, 0.6, 2_000)))
DAYS = RANDOM.integers(-9_000, -30, 2_000)
MONTHS = RANDOM.integers(0, 90, 2_000)
SCORES = RANDOM.integers(300, 851, 2_000)
HIGH_SCORES = RANDOM.integers(450, 800, 2_000)
FEW = RANDOM.integers(0, 4, 2_000)
RATES = RANDOM.uniform(0.05, 0.31, 2_000)


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (INCOMES, [99_999_999.0]),
        (DAYS, [365_243.0]),
        (MONTHS, [999.0]),
        (MONTHS, [-1.0]),
        (MONTHS, [-9.0, -8.0, -7.0]),
        (MONTHS, [998.0, 999.0]),
        (SCORES, [0.0 - 999]),
        (SCORES, [9_999.0]),
        (RATES, [-1.0]),
        (RATES, [999.0]),
        (INCOMES, [-1.0, 99_999_999.0]),
        (INCOMES, [-99_999.0, 99_999_999.0]),
        (MONTHS, [1e12]),
        (HIGH_SCORES, [0.0]),
        (FEW, [99.0]),
        (FEW, [96.0, 98.0]),
    ],
)
@pytest.mark.parametrize("parts", [1, 7])
def test_codes_are_detected(values: np.ndarray, codes: list[float], parts: int) -> None:
    assert codes_of(with_codes(values, *codes), parts) == codes


@pytest.mark.parametrize(
    "values",
    [
        INCOMES,
        DAYS,
        MONTHS,
        SCORES,
        RATES,
        np.minimum(INCOMES, 100_000),  # a cap
        with_codes(MONTHS, 0, share=0.6),  # many zeros
        with_codes(np.abs(INCOMES), 0, share=0.9),
        np.where(RANDOM.random(2_000) < 0.02, 99_999, RANDOM.integers(0, 99_000, 2_000)),
        RANDOM.choice([36, 60], 2_000),
        RANDOM.choice([0, 1], 2_000, p=[0.99, 0.01]),
        RANDOM.choice([12, 24, 36, 48, 60, 360], 2_000),
        RANDOM.integers(-5, 50, 2_000),
        with_codes(MONTHS, 1e12, share=0.001),  # two rows alone
        np.zeros(50),
        np.arange(9.0),
        np.array([1.0]),
    ],
)
def test_ordinary_columns_are_not_doubted(values: np.ndarray) -> None:
    assert codes_of(values) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_sample_is_not_doubted(scenario: str) -> None:
    (batch,) = [*batches(5_000, 3, scenario)]
    for field in batch.schema:
        if str(field.type) in ("double", "int64"):
            column = batch.column(field.name).drop_null().to_numpy(zero_copy_only=False)
            assert codes_of(column) == [], field.name


@given(
    st.lists(st.integers(-3, 12) | st.sampled_from([-9, 99, 999]), max_size=200),
    st.integers(1, 9),
)
def test_parts_are_counted_as_one_column(values: list[int], parts: int) -> None:
    assert codes_of(np.array(values), parts) == codes_of(np.array(values))
