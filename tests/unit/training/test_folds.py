"""Equal rows: whether chance explains them, and folds that don't separate them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold, train_test_split

from peerloan.book import DuplicateRows
from peerloan.loan import Field, Loans, default_definition
from peerloan.sample_data import batches
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.discrimination import FOLDS, level_auc
from peerloan.training.folds import (
    count_rarer,
    equal_groups,
    first_folds,
    split_holdout,
    stratified,
    without_shared,
)

DEFINITION = default_definition()


def sample_loans(loans: int, seed: int) -> tuple[Loans, Numbers]:
    """A sample's loans, of which every eighth is late."""
    (batch,) = batches(loans, seed=seed)
    rows: list[dict[str, Any]] = batch.to_pylist()
    values = [tuple(row[name] for name in DEFINITION.names) for row in rows]
    return Loans.of(DEFINITION, values), (np.arange(loans) % 8 == 0).astype(np.float64)


LOANS, LATE = sample_loans(1_200, 3)


def repeated(times: Codes) -> tuple[Loans, Numbers, Codes]:
    """Repeat loans in random order; returns loans, outcomes, and each row's loan number."""
    rows = np.random.default_rng(1).permutation(np.repeat(np.arange(len(times)), times))
    return LOANS.take(rows), LATE[rows], rows


def test_a_table_without_equal_rows_has_the_folds_of_scikit_learn() -> None:
    assert equal_groups(LOANS, LATE) is None
    fold = stratified(LATE, 5, 0)
    splits = StratifiedKFold(5, shuffle=True, random_state=0).split(LATE, LATE)
    for number, (_, rows) in enumerate(splits):
        assert np.flatnonzero(fold == number).tolist() == rows.tolist()
    kept, aside = split_holdout(LATE, 0.15, 0)
    by_library = train_test_split(
        np.arange(len(LATE)), test_size=0.15, stratify=LATE, random_state=0
    )
    assert (kept.tolist(), aside.tolist()) == tuple(some.tolist() for some in by_library)


@pytest.mark.parametrize(
    "times",
    [
        np.where(LATE == 1, 30, 1),
        np.where(LATE == 1, 1, 3),
        np.full(len(LATE), 2),
        np.random.default_rng(2).poisson(np.where(LATE == 1, 8.0, 1.0)),
        np.where(np.arange(len(LATE)) < 8, 3, 1),
    ],
    ids=["late ones", "ones on time", "twice", "drawn with repetition", "a few"],
)
def test_equal_rows_are_in_the_same_fold(times: Codes) -> None:
    loans, late, rows = repeated(times)
    groups = equal_groups(loans, late)
    assert groups is not None
    assert len(np.unique(groups)) == len(np.unique(np.stack([groups, rows]), axis=1).T)
    fold = stratified(late, 5, 0, groups)
    kept, aside = split_holdout(late, 0.15, 0, groups)
    assert not np.intersect1d(rows[kept], rows[aside]).size
    assert len(kept) + len(aside) == len(rows)
    for number in range(5):
        assert not np.intersect1d(rows[fold == number], rows[fold != number]).size
        different = len(np.unique(rows[(fold == number) & (late == 1)]))
        assert abs(different - len(np.unique(rows[late == 1])) / 5) <= 1
    found = DuplicateRows.of(loans, late).repeated()
    assert found is not None
    again = times[times > 1] - 1
    late_again = times[(times > 1) & (LATE == 1)] - 1
    assert (found.rows, found.repeated, found.late) == (len(rows), again.sum(), late_again.sum())
    assert f"{again.sum():,} of {len(rows):,} rows" in found.sentence()


@given(st.integers(1, 10), st.integers(2, 6), st.integers(0, 2**32))
@example(1, 4, 132)  # few different rows, none of which differ in one field alone
@example(3, 2, 1030)
@example(6, 2, 1573760)
@example(7, 2, 2432506965)
def test_chance_explains_equal_rows_of_few_values(fields: int, levels: int, seed: int) -> None:
    """Also if some fields depend on others, as a grade does on a rate."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(levels, 2.0))
    drawn = random.choice(levels, size=(4_000, len(DEFINITION.names)), p=shares)
    drawn[:, fields:] = 0
    drawn[:, 1] = drawn[:, 0] // 2
    loans = Loans.of(
        DEFINITION,
        [
            tuple(
                float(value) if field.is_number else str(value)
                for field, value in zip(DEFINITION.fields, row, strict=True)
            )
            for row in drawn.tolist()
        ],
    )
    late = (random.random(4_000) < 0.1).astype(np.float64)
    assert equal_groups(loans, late) is None


def test_loans_that_a_model_can_not_distinguish_are_equal() -> None:
    """Ids are not fields, −0 equals 0, and models read numbers in single precision."""
    again = dict(LOANS.columns)
    income = LOANS.numbers("annual_inc")
    again["annual_inc"] = income * (1 + 1e-12)
    again["delinq_2yrs"] = np.where(
        LOANS.numbers("delinq_2yrs") == 0, -0.0, LOANS.numbers("delinq_2yrs")
    )
    equal = DuplicateRows.of(LOANS)
    equal.add(Loans(DEFINITION, again, LOANS.size))
    found = equal.repeated()
    assert found is not None
    assert (found.rows, found.repeated, found.late) == (2 * LOANS.size, LOANS.size, None)
    other = dict(LOANS.columns)
    other["annual_inc"] = income + 1
    apart = DuplicateRows.of(LOANS)
    apart.add(Loans(DEFINITION, other, LOANS.size))
    assert apart.repeated() is None
    assert DuplicateRows().repeated() is None


def test_a_sample_of_a_large_table_decides_whether_chance_explains_equal_rows() -> None:
    equal = DuplicateRows(sampled_rows=500)
    for first in range(0, 2 * LOANS.size, 300):
        rows = np.arange(first, first + 300) % LOANS.size
        equal.add(LOANS.take(rows), LATE[rows])
    found = equal.repeated()
    assert found is not None
    assert (found.rows, found.repeated, found.late) == (2_400, 1_200, 150)


def test_repeated_loans_are_counted_once() -> None:
    loans, late, _ = repeated(np.where(LATE == 1, 30, 1))
    assert count_rarer(late, equal_groups(loans, late)) == (150, "late")
    assert count_rarer(late) == (1_050, "on time")


def test_loans_of_a_later_table_that_were_trained_on_are_left_out() -> None:
    half = np.arange(LOANS.size) < 600
    assert without_shared(LOANS.take(half), LOANS).tolist() == (~half).tolist()
    assert without_shared(LOANS.take(half), LOANS.take(~half)).all()


def test_the_auc_of_levels_does_not_use_copies_of_a_loan() -> None:
    """Meaningless levels of two loans each would have a high AUC with copies of the loans."""
    meaningless = np.arange(LOANS.size) // 2
    loans, late, rows = repeated(np.where(LATE == 1, 20, 1))
    codes, is_late = meaningless[rows], late.astype(np.int64)
    leaky = level_auc(codes, is_late)
    honest = level_auc(codes, is_late, first_folds(loans, is_late, FOLDS))
    assert leaky is not None
    assert honest is not None
    assert honest < 0.6 < 0.8 < leaky
    assert first_folds(LOANS, LATE.astype(np.int64), 5).tolist() == [i % 5 for i in range(1_200)]


def test_a_column_that_numbers_the_rows_does_not_hide_copies() -> None:
    fields = tuple(Field(name, "number", name) for name in ("row", "a", "b"))
    random = np.random.default_rng(1)
    loans, copies = random.normal(size=(300, 2)), 5
    table = np.tile(loans, (copies, 1))
    numbers = random.permutation(len(table)).astype(np.float64)
    columns = {"row": numbers, "a": table[:, 0], "b": table[:, 1]}
    definition = msgspec.structs.replace(LOANS.definition, fields=fields)
    found = DuplicateRows.of(Loans(definition, columns, len(table))).repeated()
    assert found is not None
    assert found.repeated == 300 * (copies - 1)
    assert "equal an earlier one in every field but row," in found.sentence()


def test_the_most_frequent_row_does_not_count_as_copies() -> None:
    random = np.random.default_rng(2)
    values = random.normal(size=(1_000, 2))
    values[:300] = 0.0  # no history
    fields = tuple(Field(name, "number", name) for name in ("a", "b"))
    definition = msgspec.structs.replace(LOANS.definition, fields=fields)
    loans = Loans(definition, {"a": values[:, 0], "b": values[:, 1]}, len(values))
    assert DuplicateRows.of(loans).repeated() is None


def test_groups_are_numbered_by_their_first_rows() -> None:
    rows = np.random.default_rng(3).permutation(np.repeat(np.arange(LOANS.size), 4))
    groups = DuplicateRows.of(LOANS.take(rows)).groups()
    assert groups is not None
    firsts = np.unique(groups, return_index=True)[1]
    assert (np.diff(firsts) > 0).all()
    assert all(len(set(rows[groups == number])) == 1 for number in range(50))
