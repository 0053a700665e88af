"""The candidates: what can be trained, each with its fixed settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xgboost
from sklearn.ensemble import RandomForestClassifier

from peerloan.loan import Loans, Numbers
from peerloan.model import OnnxParts, Scorecard
from peerloan.model.encoding import to_single
from peerloan.training.compiling import compile_forest, compile_stumps
from peerloan.training.encoders import fit_encoding

SEED = 0
# Called with the fraction of the fit that is done.
Progress = Callable[[float], None]


class Fitted(Protocol):
    """A fitted candidate."""

    def predict(self, loans: Loans) -> Numbers:
        """Probabilities (n,) of late payment."""

    def compile(self, loans: Loans) -> Scorecard | OnnxParts:
        """The form that is deployed; `loans` are those it was fitted on."""


Fit = Callable[[Loans, Numbers, Progress], Fitted]


@dataclass(frozen=True)
class Forest:
    """A random forest on imputed, one-hot encoded loans: the client's first model."""

    encoding: Any
    forest: RandomForestClassifier

    @classmethod
    def fit(cls, loans: Loans, late: Numbers, progress: Progress) -> Forest:
        """Fit a hundred full-grown trees, in steps so that progress can be shown."""
        encoding = fit_encoding(loans, one_hot_ordered=True, impute=True)
        matrix = to_single(encoding.matrix(loans))
        forest = RandomForestClassifier(random_state=SEED, n_jobs=-1, warm_start=True)
        for trees in range(10, 101, 10):
            forest.set_params(n_estimators=trees).fit(matrix, late)
            progress(trees / 100)
        return cls(encoding, forest)

    def predict(self, loans: Loans) -> Numbers:
        """Probabilities (n,) of late payment."""
        matrix = to_single(self.encoding.matrix(loans))
        return self.forest.predict_proba(matrix)[:, 1]  # type: ignore[no-any-return]

    def compile(self, loans: Loans) -> OnnxParts:  # noqa: ARG002  a forest needs no reference
        """As ONNX."""
        return OnnxParts(compile_forest(self.forest, len(self.encoding.columns)), self.encoding)


@dataclass(frozen=True)
class Stumps:
    """Boosted trees of depth 1: an additive model, because no tree sees two features."""

    encoding: Any
    booster: xgboost.Booster

    # Cross-validated on PeerLoan's table, these are at the plateau of AUC and log loss.
    SETTINGS = {  # noqa: RUF012
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": 1,
        "eta": 0.03,
        "subsample": 0.5,
        "seed": SEED,
    }
    ROUNDS = 600

    @classmethod
    def fit(cls, loans: Loans, late: Numbers, progress: Progress) -> Stumps:
        """Fit the stumps."""
        encoding = fit_encoding(loans, one_hot_ordered=False, impute=False)
        table = xgboost.DMatrix(to_single(encoding.matrix(loans)), late)
        booster = xgboost.train(
            cls.SETTINGS, table, cls.ROUNDS, callbacks=[_Told(progress, cls.ROUNDS)]
        )
        return cls(encoding, booster)

    def predict(self, loans: Loans) -> Numbers:
        """Probabilities (n,) of late payment."""
        table = xgboost.DMatrix(to_single(self.encoding.matrix(loans)))
        return self.booster.predict(table).astype(np.float64)

    def compile(self, loans: Loans) -> Scorecard:
        """As a scorecard."""
        return compile_stumps(self.booster, self.encoding, loans)


class _Told(xgboost.callback.TrainingCallback):
    def __init__(self, progress: Progress, rounds: int) -> None:
        self._progress, self._rounds = progress, rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        if epoch % 10 == 9:
            self._progress((epoch + 1) / self._rounds)
        return False


CANDIDATES: Mapping[str, Fit] = {"basic": Forest.fit, "additive": Stumps.fit}
