"""Folds for cross-validation.

Equal rows stay in one fold. Otherwise a loan of an oversampled table would be evaluated by a fit on
its copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from peerloan.book import DuplicateRows
from peerloan.loan import Loans
from peerloan.stats.arrays import Codes, Numbers


def equal_groups(loans: Loans, late: Numbers) -> Codes | None:
    """Number each loan's group of equal loans (n,); None if chance explains the equal ones."""
    return DuplicateRows.of(loans, late).groups()


def stratified(late: Numbers, folds: int, seed: int, groups: Codes | None = None) -> Codes:
    """Assign each loan to a fold (n,), with about as many late ones in each.

    Loans of one group are in one fold; a group with a late loan counts as late.
    """
    kinds, own = _kinds(late, groups)
    fold = np.empty(len(kinds), dtype=np.int64)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(kinds, kinds)
    for number, (_, rows) in enumerate(splits):
        fold[rows] = number
    return fold[own]


def split_holdout(
    late: Numbers, share: float, seed: int, groups: Codes | None = None
) -> tuple[Codes, Codes]:
    """Split loans into those to fit on and about this share held out; groups stay together."""
    kinds, own = _kinds(late, groups)
    kept, aside = train_test_split(
        np.arange(len(kinds)), test_size=share, stratify=kinds, random_state=seed
    )
    if groups is None:
        return kept, aside
    return np.flatnonzero(np.isin(own, kept)), np.flatnonzero(np.isin(own, aside))


def count_rarer(late: Numbers, groups: Codes | None = None) -> tuple[int, str]:
    """Return how many different loans the rarer class has, and its name."""
    kinds, _ = _kinds(late, groups)
    n_late = int(kinds.sum())
    return min((n_late, "late"), (len(kinds) - n_late, "on time"))


def without_shared(loans: Loans, later: Loans) -> npt.NDArray[np.bool_]:
    """Return which loans of a later table (n,) equal none of an earlier one.

    If chance explains the equal ones, all are returned.
    """
    both = DuplicateRows.of(loans)
    both.add(later)
    if not both.is_beyond_chance:
        return np.ones(later.size, dtype=np.bool_)
    return ~np.isin(both.hashes[loans.size :], both.hashes[: loans.size])


def first_folds(loans: Loans, late: Codes, folds: int) -> Codes:
    """Return the fold of each loan (n,) by its position; equal loans follow the first of them."""
    groups = equal_groups(loans, late.astype(np.float64))
    if groups is None:
        return np.arange(loans.size) % folds
    firsts = np.unique(groups, return_index=True)[1]
    return np.asarray(firsts[groups] % folds)


def _kinds(late: Numbers, groups: Codes | None) -> tuple[Numbers, Codes]:
    """Return 1 for each group with a late loan and 0 for others, and the group of each loan."""
    if groups is None:
        return late, np.arange(len(late))
    kinds = np.zeros(int(groups.max()) + 1)
    np.maximum.at(kinds, groups, late)
    return kinds, groups
