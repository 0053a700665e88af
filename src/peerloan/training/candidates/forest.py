"""The random forest, the lender's first model."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from peerloan.loan import Loans
from peerloan.model import Encoding
from peerloan.model.encoding import to_single
from peerloan.model.onnx_model import FLOOR
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.candidates.base import SEED, Hyperparameters, Progress
from peerloan.training.compile.onnx import forest_graph
from peerloan.training.fit_encoding import fit_encoding
from peerloan.training.resampling import resample

_TREES = 100
# Most loans drawn for a tree. With more, training is slower and the forest not better.
_LOANS_A_TREE = 20_000


@dataclass(frozen=True)
class _Basic:
    encoding: Encoding
    forest: RandomForestClassifier

    def margins(self, loans: Loans) -> Numbers:
        """Compute log-odds (n,) of the share of trees, clipped away from 0 and 1."""
        matrix = to_single(self.encoding.matrix(loans))
        trees = self.forest.estimators_
        share = np.zeros(loans.size)
        # The library adds the trees in the order in which threads finish, so its last bits vary.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for tree_share in threads.map(lambda tree: tree.predict_proba(matrix)[:, 1], trees):
                share += tree_share
        share = np.clip(share / len(trees), FLOOR, 1 - FLOOR)
        return np.asarray(np.log(share / (1 - share)))

    def compile(self, loans: Loans) -> OnnxParts:  # noqa: ARG002  a forest has no reference
        """Compile to ONNX."""
        return OnnxParts(forest_graph(self.forest, len(self.encoding.columns)), self.encoding)


def fit_basic(loans: Loans, late: Numbers, settings: Hyperparameters, progress: Progress) -> _Basic:
    """Fit a hundred trees on imputed, one-hot encoded loans, ten at a time to report progress."""
    encoding = fit_encoding(loans, ranks=False, impute=True)
    matrix, labels, weights = resample(settings.resampling, encoding.matrix(loans), late, SEED)
    forest = RandomForestClassifier(
        min_samples_leaf=settings["min_leaf"],
        max_samples=min(len(labels), _LOANS_A_TREE),
        random_state=SEED,
        n_jobs=-1,
        warm_start=True,
    )
    single = to_single(matrix)
    for trees in range(10, _TREES + 1, 10):
        forest.set_params(n_estimators=trees).fit(single, labels, sample_weight=weights)
        progress(trees / _TREES)
    return _Basic(encoding, forest)
