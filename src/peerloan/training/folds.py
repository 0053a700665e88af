"""Folds for cross-validation.

Equal rows are in the same fold. Otherwise a loan of an oversampled table would be evaluated by a
model that was fitted on its copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from peerloan.book import DuplicateRows
from peerloan.loan import Loans
from peerloan.stats.arrays import Codes, Numbers


def equal_groups(loans: Loans, late: Numbers) -> Codes | None:
    """Return the group of equal loans of each loan (n,), or None if chance explains equal loans."""
    return DuplicateRows.of(loans, late).groups()


def stratified(late: Numbers, folds: int, seed: int, groups: Codes | None = None) -> Codes:
    """Assign each loan to a fold (n,), with about the same number of late loans in each fold.

    Loans of one group are in the same fold. A group with a late loan counts as late.
    """
    group_late, group = _late_by_group(late, groups)
    fold = np.empty(len(group_late), dtype=np.int64)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(group_late, group_late)
    for number, (_, rows) in enumerate(splits):
        fold[rows] = number
    return fold[group]


def split_holdout(
    late: Numbers, share: float, seed: int, groups: Codes | None = None
) -> tuple[Codes, Codes]:
    """Return the rows to fit on, and about this share of the rows to hold out.

    A group is not split.
    """
    group_late, group = _late_by_group(late, groups)
    fit_on, held_out = train_test_split(
        np.arange(len(group_late)), test_size=share, stratify=group_late, random_state=seed
    )
    if groups is None:
        return fit_on, held_out
    return np.flatnonzero(np.isin(group, fit_on)), np.flatnonzero(np.isin(group, held_out))


def count_rarer(late: Numbers, groups: Codes | None = None) -> tuple[int, str]:
    """Return the number of different loans of the rarer class, and its name."""
    group_late, _ = _late_by_group(late, groups)
    n_late = int(group_late.sum())
    return min((n_late, "late"), (len(group_late) - n_late, "on time"))


def without_shared(loans: Loans, later: Loans) -> npt.NDArray[np.bool_]:
    """Return for each loan of a later table (n,) whether it equals no loan of an earlier table.

    If chance explains equal loans, it is true for all.
    """
    both = DuplicateRows.of(loans)
    both.add(later)
    if not both.is_beyond_chance:
        return np.ones(later.size, dtype=np.bool_)
    return ~np.isin(both.hashes[loans.size :], both.hashes[: loans.size])


def first_folds(loans: Loans, late: Codes, folds: int) -> Codes:
    """Return the fold of each loan (n,) by its position; equal loans share a fold."""
    groups = equal_groups(loans, late.astype(np.float64))
    if groups is None:
        return np.arange(loans.size) % folds
    firsts = np.unique(groups, return_index=True)[1]
    return np.asarray(firsts[groups] % folds)


def _late_by_group(late: Numbers, groups: Codes | None) -> tuple[Numbers, Codes]:
    """Return 1 for each group with a late loan and 0 for others, and the group of each loan."""
    if groups is None:
        return late, np.arange(len(late))
    group_late = np.zeros(int(groups.max()) + 1)
    np.maximum.at(group_late, groups, late)
    return group_late, groups
