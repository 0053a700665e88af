"""Folds: which loans are judged by a fit that did not see them.

Equal rows stay together: else a loan of an oversampled table is judged by a fit on its copies.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedKFold, train_test_split

from peerloan.book import DuplicateRows
from peerloan.loan import Loans
from peerloan.stats.arrays import Codes, Numbers


def equal_groups(loans: Loans, late: Numbers) -> Codes | None:
    """The number of each loan's group of equal ones (n,); None if chance explains those."""
    return DuplicateRows.of(loans, late).groups()


def stratified(late: Numbers, folds: int, seed: int, groups: Codes | None = None) -> Codes:
    """The fold of each loan (n,), with about as many late ones in each.

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
    """Loans to fit on, and about this share of them that is set aside; groups stay together."""
    kinds, own = _kinds(late, groups)
    kept, aside = train_test_split(
        np.arange(len(kinds)), test_size=share, stratify=kinds, random_state=seed
    )
    if groups is None:
        return kept, aside
    return np.flatnonzero(np.isin(own, kept)), np.flatnonzero(np.isin(own, aside))


def count_rarer(late: Numbers, groups: Codes | None = None) -> tuple[int, str]:
    """How many different loans there are of the rarer kind, and which kind that is."""
    kinds, _ = _kinds(late, groups)
    n_late = int(kinds.sum())
    return min((n_late, "late"), (len(kinds) - n_late, "on time"))


def without_shared(loans: Loans, later: Loans) -> npt.NDArray[np.bool_]:
    """Which loans of a later table (n,) equal none of an earlier one; all of them, where chance
    explains those that do.
    """
    both = DuplicateRows.of(loans)
    both.add(later)
    if not both.beyond_chance:
        return np.ones(later.size, dtype=np.bool_)
    return ~np.isin(both.hashes[loans.size :], both.hashes[: loans.size])


def first_folds(loans: Loans, late: Codes, folds: int) -> Codes:
    """The fold of each loan (n,) by its place in the table; equal ones follow the first of them."""
    groups = equal_groups(loans, late.astype(np.float64))
    if groups is None:
        return np.arange(loans.size) % folds
    firsts = np.unique(groups, return_index=True)[1]
    return np.asarray(firsts[groups] % folds)


def _kinds(late: Numbers, groups: Codes | None) -> tuple[Numbers, Codes]:
    """1 for each group with a late loan, 0 for each other; and the group of each loan."""
    if groups is None:
        return late, np.arange(len(late))
    kinds = np.zeros(int(groups.max()) + 1)
    np.maximum.at(kinds, groups, late)
    return kinds, groups
