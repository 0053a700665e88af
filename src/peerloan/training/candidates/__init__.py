"""The candidates: how each is fitted and compiled. The simplest is first."""

from collections.abc import Mapping

from peerloan.training.candidates.base import Candidate, Fitted, Hyperparameters, Progress
from peerloan.training.candidates.boosting import fit_additive, fit_boosted
from peerloan.training.candidates.forest import fit_basic
from peerloan.training.candidates.linear import fit_binned, fit_logistic

CANDIDATES: Mapping[str, Candidate] = {
    "binned": fit_binned,
    "additive": fit_additive,
    "logistic": fit_logistic,
    "boosted": fit_boosted,
    "basic": fit_basic,
}

__all__ = ["CANDIDATES", "Candidate", "Fitted", "Hyperparameters", "Progress"]
