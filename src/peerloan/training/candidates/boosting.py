"""Boosted trees: additive trees, which compile to a scorecard, and trees with interactions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost

from peerloan.loan import Definition, Loans
from peerloan.model import Encoding, Scorecard
from peerloan.model.encoding import to_single
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.candidates.base import SEED, Hyperparameters, Progress
from peerloan.training.compile.onnx import booster_graph
from peerloan.training.compile.scorecard import compile_trees
from peerloan.training.fit_encoding import fit_encoding
from peerloan.training.folds import equal_groups, split_holdout
from peerloan.training.resampling import resample

_COMMON = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "subsample": 0.5,
    "seed": SEED,
    # One thread per fit, because several fits run in parallel.
    "nthread": 1,
}
# Most rounds of a boosted candidate. It stops after `_PATIENCE` rounds without a gain on held-out
# loans.
_MOST_ROUNDS = 1000
_PATIENCE = 30
# With few held-out loans, one of the first rounds may be the best by chance. The margins of such a
# booster have a scale that no calibration over the folds can correct.
_LEAST_ROUNDS = 40
_HELD_OUT_SHARE = 0.15


@dataclass(frozen=True)
class _Boosted:
    encoding: Encoding
    booster: xgboost.Booster

    def margins(self, loans: Loans) -> Numbers:
        """Compute log-odds (n,), which the library sums in single precision."""
        table = xgboost.DMatrix(to_single(self.encoding.matrix(loans)))
        return self.booster.predict(table, output_margin=True).astype(np.float64)

    def compile(self, loans: Loans) -> Scorecard | OnnxParts:  # noqa: ARG002
        """Compile to ONNX."""
        graph = booster_graph(self.booster, len(self.encoding.columns))
        return OnnxParts(graph, self.encoding)


class _Additive(_Boosted):
    def compile(self, loans: Loans) -> Scorecard | OnnxParts:
        """Compile to a scorecard."""
        return compile_trees(self.booster, self.encoding, loans)


def fit_additive(
    loans: Loans, late: Numbers, settings: Hyperparameters, progress: Progress
) -> _Additive:
    """Fit trees that each use one field: stumps, or deeper trees restricted to one field."""
    encoding, table = _table(loans, late, settings)
    parameters = _COMMON | {
        "eta": settings["eta"],
        "max_depth": settings["depth"],
        "min_child_weight": settings["min_child_weight"],
        "colsample_bynode": settings["columns"],
    }
    if settings["depth"] > 1:
        parameters["interaction_constraints"] = _interaction_groups(encoding, loans.definition)
    if settings["monotone"]:
        parameters["monotone_constraints"] = _directions(encoding, loans.definition)
    rounds = settings["rounds"]
    callback = _ProgressCallback(progress, rounds)
    return _Additive(encoding, xgboost.train(parameters, table, rounds, callbacks=[callback]))


def fit_boosted(
    loans: Loans, late: Numbers, settings: Hyperparameters, progress: Progress
) -> _Boosted:
    """Fit trees with interactions, with early stopping on held-out loans."""
    fit_on, held_out = split_holdout(late, _HELD_OUT_SHARE, SEED, equal_groups(loans, late))
    encoding, table = _table(loans.take(fit_on), late[fit_on], settings)
    evaluated = xgboost.DMatrix(to_single(encoding.matrix(loans.take(held_out))), late[held_out])
    parameters = _COMMON | {
        "eta": settings["eta"],
        "max_depth": settings["depth"],
        "min_child_weight": settings["min_child_weight"],
        "eval_metric": "auc",
    }
    booster = xgboost.train(
        parameters,
        table,
        _MOST_ROUNDS,
        evals=[(evaluated, "held_out")],
        early_stopping_rounds=_PATIENCE,
        verbose_eval=False,
        callbacks=[_ProgressCallback(progress, _MOST_ROUNDS)],
    )
    rounds = max(booster.best_iteration + 1, min(_LEAST_ROUNDS, booster.num_boosted_rounds()))
    return _Boosted(encoding, booster[:rounds])


def _table(
    loans: Loans, late: Numbers, settings: Hyperparameters
) -> tuple[Encoding, xgboost.DMatrix]:
    encoding = fit_encoding(loans, ranks=True, impute=settings.resampling == "smote")
    matrix, labels, weights = resample(settings.resampling, encoding.matrix(loans), late, SEED)
    return encoding, xgboost.DMatrix(to_single(matrix), labels, weight=weights)


def _interaction_groups(encoding: Encoding, definition: Definition) -> str:
    """Return the columns of each field as JSON, because the table's columns have no names."""
    owners = encoding.field_indexes(definition).tolist()
    groups = [
        [column for column, owner in enumerate(owners) if owner == field]
        for field in dict.fromkeys(owners)
    ]
    return json.dumps(groups)


def _directions(encoding: Encoding, definition: Definition) -> tuple[int, ...]:
    """Return for each column +1 if the probability must not fall as it rises, −1 if not rise."""
    signs = {"higher": 1, "lower": -1, None: 0}
    return tuple(
        signs[definition[column.field].riskier] if column.make in ("value", "rank") else 0
        for column in encoding.columns
    )


class _ProgressCallback(xgboost.callback.TrainingCallback):
    def __init__(self, progress: Progress, rounds: int) -> None:
        self._progress, self._rounds = progress, rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:  # noqa: ARG002
        if epoch % 10 == 9:
            self._progress((epoch + 1) / self._rounds)
        return False

    def after_training(self, model: Any) -> Any:
        self._progress(1.0)  # also after early stopping
        return model
