"""Logistic regressions: on scaled columns, and on optimal bins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from optbinning import OptimalBinning
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import RobustScaler

from peerloan.loan import Field, Loans, Numbers
from peerloan.model import Encoding, OnnxParts, Scorecard
from peerloan.training.candidates.base import SEED, Progress, Settings
from peerloan.model.encoding import to_single
from peerloan.training.encoders import fit_encoding
from peerloan.training.graphs import pipeline_graph
from peerloan.training.resampling import resample
from peerloan.training.scorecards import compile_bins


@dataclass(frozen=True)
class _Logistic:
    encoding: Encoding
    pipeline: Pipeline

    def margins(self, loans: Loans) -> Numbers:
        """Log-odds (n,)."""
        matrix = to_single(self.encoding.matrix(loans))
        return self.pipeline.decision_function(matrix).astype(np.float64)  # type: ignore[no-any-return]

    def compile(self, loans: Loans) -> OnnxParts:  # noqa: ARG002  a pipeline needs no reference
        """As ONNX."""
        return OnnxParts(pipeline_graph(self.pipeline, len(self.encoding.columns)), self.encoding)


def fit_logistic(loans: Loans, late: Numbers, settings: Settings, progress: Progress) -> _Logistic:
    """Numbers and ranks scaled by median and quartiles, categories one-hot."""
    encoding = fit_encoding(loans, ranks=True, impute=True)
    matrix, labels, weights = resample(settings.resampling, encoding.matrix(loans), late, SEED)
    scaled = [i for i, column in enumerate(encoding.columns) if column.make in ("value", "rank")]
    pipeline = Pipeline(
        [
            ("scale", ColumnTransformer([("robust", RobustScaler(), scaled)], remainder="passthrough")),
            ("regression", LogisticRegression(C=settings["C"], max_iter=2000)),
        ]
    )
    pipeline.fit(to_single(matrix), labels, regression__sample_weight=weights)
    progress(1.0)
    return _Logistic(encoding, pipeline)


@dataclass(frozen=True)
class _Binned:
    binnings: Mapping[str, OptimalBinning]
    regression: LogisticRegression

    def margins(self, loans: Loans) -> Numbers:
        """Log-odds (n,)."""
        return self.regression.decision_function(_woe(self.binnings, loans))  # type: ignore[no-any-return]

    def compile(self, loans: Loans) -> Scorecard:
        """As a scorecard: weight of evidence times coefficient, bin by bin."""
        coefficients = dict(zip(self.binnings, self.regression.coef_[0].tolist(), strict=True))

        def values_at(field: Field, probes: Loans) -> Numbers:
            return coefficients[field.name] * _woe_of(self.binnings[field.name], field, probes)

        return compile_bins(
            float(self.regression.intercept_[0]),
            values_at,
            lambda field: self.binnings[field.name].splits.tolist(),
            loans,
        )


def fit_binned(loans: Loans, late: Numbers, settings: Settings, progress: Progress) -> _Binned:
    """Optimal bins of every field (Navas-Palencia 2020), then a regression on their weights of
    evidence."""
    binnings = {}
    fields = loans.definition.fields
    for done, field in enumerate(fields):
        binning = OptimalBinning(
            field.name,
            dtype="categorical" if field.kind == "category" else "numerical",
            min_bin_size=settings["min_bin_size"],
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a constant column, which gets one bin
            binning.fit(_given(field, loans), late.astype(np.int64))
        binnings[field.name] = binning
        progress((done + 1) / len(fields))
    matrix, labels, weights = resample(settings.resampling, _woe(binnings, loans), late, SEED)
    regression = LogisticRegression(C=settings["C"], max_iter=2000)
    regression.fit(matrix, labels, sample_weight=weights)
    return _Binned(binnings, regression)


def _woe(binnings: Mapping[str, OptimalBinning], loans: Loans) -> Numbers:
    columns = [
        _woe_of(binnings[field.name], field, loans) for field in loans.definition.fields
    ]
    return np.column_stack(columns)


def _woe_of(binning: OptimalBinning, field: Field, loans: Loans) -> Numbers:
    """Weights of evidence (n,); of late against on time, so that more is riskier."""
    found = binning.transform(_given(field, loans), metric="woe", metric_missing="empirical")
    return -np.asarray(found, dtype=np.float64)


def _given(field: Field, loans: Loans) -> np.ndarray:  # type: ignore[type-arg]
    """A field's column as the library takes it: numbers, ranks, or texts with None."""
    if field.is_number:
        return loans.numbers(field.name)
    texts = loans.texts(field.name)
    if field.kind == "ordered":
        ranks = texts.recode(field.levels, -1)
        return np.where(ranks < 0, np.nan, ranks)
    levels = np.array([*texts.levels, None], dtype=object)
    return levels[texts.codes]
