"""Logistic regressions: on scaled columns, and on optimal bins."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from optbinning import OptimalBinning
from sklearn.linear_model import LogisticRegression

from peerloan.loan import Field, Loans
from peerloan.model import Encoding, Scorecard
from peerloan.model.encoding import to_single
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.candidates import binning_solver
from peerloan.training.candidates.base import SEED, Hyperparameters, Progress
from peerloan.training.compile.onnx import logistic_graph
from peerloan.training.compile.scorecard import compile_bins
from peerloan.training.fit_encoding import fit_encoding
from peerloan.training.resampling import resample, robust_scale

# Values are clipped at this distance from the median, in interquartile ranges: otherwise one loan
# with a number like 1e30 would outweigh all others.
_OUTLIER = 20.0
# The library warns about a constant column, which gets one bin. The filter is set once, because
# filters are global and fits run in parallel threads.
warnings.filterwarnings("ignore", module="optbinning")
_LARGEST = float(np.finfo(np.float32).max)
binning_solver.leave_signals_to_python()


@dataclass(frozen=True)
class _Logistic:
    encoding: Encoding
    centre: Numbers
    scale: Numbers
    regression: LogisticRegression

    def margins(self, loans: Loans) -> Numbers:
        """Compute log-odds (n,)."""
        scaled = _scaled(self.encoding.matrix(loans), self.centre, self.scale)
        margins: Numbers = self.regression.decision_function(scaled)
        return margins

    def compile(self, loans: Loans) -> OnnxParts:  # noqa: ARG002  a regression has no reference
        """Compile to ONNX."""
        weights, intercept = self.regression.coef_[0], float(self.regression.intercept_[0])
        graph = logistic_graph(self.centre, self.scale, _OUTLIER, weights, intercept)
        return OnnxParts(graph, self.encoding)


def fit_logistic(
    loans: Loans, late: Numbers, settings: Hyperparameters, progress: Progress
) -> _Logistic:
    """Fit on numbers and ranks, scaled by median and quartiles, and one-hot categories."""
    encoding = fit_encoding(loans, ranks=True, impute=True)
    matrix, labels, weights = resample(settings.resampling, encoding.matrix(loans), late, SEED)
    flags = [column.make in ("level", "missing") for column in encoding.columns]
    centre, scale = robust_scale(to_single(matrix).astype(np.float64))
    centre, scale = np.where(flags, 0.0, centre), np.where(flags, 1.0, scale)
    regression = LogisticRegression(C=settings["C"], max_iter=2000)
    regression.fit(_scaled(matrix, centre, scale), labels, sample_weight=weights)
    progress(1.0)
    return _Logistic(encoding, centre, scale, regression)


def _scaled(matrix: Numbers, centre: Numbers, scale: Numbers) -> Numbers:
    """Scale the columns as the ONNX graph does, from single precision in double precision."""
    return np.clip((to_single(matrix).astype(np.float64) - centre) / scale, -_OUTLIER, _OUTLIER)


@dataclass(frozen=True)
class _Binned:
    # By field name; a field without any value has none.
    binnings: Mapping[str, OptimalBinning]
    regression: LogisticRegression

    def margins(self, loans: Loans) -> Numbers:
        """Compute log-odds (n,)."""
        margins: Numbers = self.regression.decision_function(_woe(self.binnings, loans))
        return margins

    def compile(self, loans: Loans) -> Scorecard:
        """Compile to a scorecard: weight of evidence times coefficient for each bin."""
        coefficients: dict[str, float] = dict(
            zip(self.binnings, self.regression.coef_[0].tolist(), strict=True)
        )

        def values_at(field: Field, probes: Loans) -> Numbers:
            if field.name not in self.binnings:
                return np.zeros(probes.size)
            return coefficients[field.name] * _woe_of(self.binnings[field.name], field, probes)

        def edges_of(field: Field) -> list[float]:
            binning = self.binnings.get(field.name)
            return [] if binning is None else list(map(float, binning.splits))

        return compile_bins(float(self.regression.intercept_[0]), values_at, edges_of, loans)


def fit_binned(
    loans: Loans, late: Numbers, settings: Hyperparameters, progress: Progress
) -> _Binned:
    """Fit optimal bins of all fields (Navas-Palencia 2020), then a regression on their weights."""
    binnings = {}
    fields = loans.definition.fields
    for done, field in enumerate(fields):
        if _has_values(field, loans):
            binnings[field.name] = _fit_binning(field, loans, late, settings["min_bin_size"])
        progress((done + 1) / len(fields))
    matrix, labels, weights = resample(settings.resampling, _woe(binnings, loans), late, SEED)
    regression = LogisticRegression(C=settings["C"], max_iter=2000)
    regression.fit(matrix, labels, sample_weight=weights)
    return _Binned(binnings, regression)


def _fit_binning(field: Field, loans: Loans, late: Numbers, least: float) -> OptimalBinning:
    binning = OptimalBinning(
        field.name,
        dtype="categorical" if field.kind == "category" else "numerical",
        # Bins are merged from prebins, whose default least size may be larger.
        min_prebin_size=least,
        min_bin_size=least,
    )
    return binning.fit(_library_input(field, loans), late.astype(np.int64))


def _woe(binnings: Mapping[str, OptimalBinning], loans: Loans) -> Numbers:
    columns = [
        _woe_of(binning, loans.definition[name], loans) for name, binning in binnings.items()
    ]
    return np.column_stack(columns)


def _woe_of(binning: OptimalBinning, field: Field, loans: Loans) -> Numbers:
    """Return weights of evidence (n,) of late against on time: higher is riskier."""
    on_time_against_late = binning.transform(
        _library_input(field, loans), metric="woe", metric_missing="empirical"
    )
    return -np.asarray(on_time_against_late, dtype=np.float64)


def _has_values(field: Field, loans: Loans) -> bool:
    if field.is_number:
        return not np.isnan(loans.numbers(field.name)).all()
    return bool((loans.texts(field.name).codes >= 0).any())


def _library_input(field: Field, loans: Loans) -> npt.NDArray[Any]:
    """Convert a field's column to the library's input: numbers, ranks, or texts with None."""
    if field.is_number:
        # The library searches for splits in single precision: values must not overflow to infinity.
        return np.clip(loans.numbers(field.name), -_LARGEST, _LARGEST)
    texts = loans.texts(field.name)
    if field.kind == "ordered":
        ranks = texts.recode(field.levels, -1)
        return np.where(ranks < 0, np.nan, ranks)
    levels = np.array([*texts.levels, None], dtype=object)
    return levels[texts.codes]
