"""The interface that all candidates implement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from peerloan.loan import Loans
from peerloan.model import Scorecard
from peerloan.registry import OnnxParts
from peerloan.stats.arrays import Numbers
from peerloan.training.resampling import Resampling

SEED = 0
# Called with the fraction of the fit that is done.
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Hyperparameters:
    """One setting of a candidate: a point of its grid, and the resampling."""

    values: Mapping[str, Any]
    resampling: Resampling = "none"

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __str__(self) -> str:
        texts = [f"{key}={value}" for key, value in self.values.items()]
        return ", ".join([*texts, self.resampling] if self.resampling != "none" else texts)


class Fitted(Protocol):
    """A fitted candidate, before calibration."""

    def margins(self, loans: Loans) -> Numbers:
        """Compute log-odds (n,) of late payment."""

    def compile(self, loans: Loans) -> Scorecard | OnnxParts:
        """Compile to the deployed form; `loans` are the loans that it was fitted on."""


Candidate = Callable[[Loans, Numbers, Hyperparameters, Progress], Fitted]
