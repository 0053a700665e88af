"""Compare two versions on the same loans: which one is better, and which decisions change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peerloan.loan import Loans
from peerloan.model import BANDS, probabilities
from peerloan.registry import Bundle
from peerloan.stats.arrays import Numbers
from peerloan.stats.bootstrap import SAMPLES, ChallengerVerdict, ModelScores, judge_challenger
from peerloan.stats.calibration import regress_on_margins, squared_errors
from peerloan.stats.measures import Rate
from peerloan.training.folds import equal_groups


@dataclass(frozen=True)
class VersionFigures:
    """Figures of one version on the book: its ranking, its probabilities and its decisions.

    `slope` and `intercept` are those of the outcome regressed on the margin (1 and 0 are perfect).
    `expected` is the mean probability, `flagged` the share of loans that are predicted late.
    """

    version: str
    auc: float
    brier: float
    slope: float
    intercept: float
    expected: float
    threshold: float
    flagged: float
    recall: float


@dataclass(frozen=True)
class Comparison:
    """Two versions, A and B, on the same loans.

    `b_against_a` is the verdict on B as A's challenger. `decided[a][b]` are the loans with decision
    `a` of A and `b` of B (0 no, 1 yes), None if there are none; `moved[a][b]` counts the loans in
    A's band `a` and B's band `b`.
    """

    a: VersionFigures
    b: VersionFigures
    b_against_a: ChallengerVerdict
    decisions: tuple[tuple[Rate | None, Rate | None], tuple[Rate | None, Rate | None]]
    band_moves: tuple[tuple[int, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Convert to data for JSON; `verdict` is on B as A's challenger."""
        verdict = self.b_against_a
        value, *interval = verdict.auc.difference
        return {
            "loans": verdict.loans,
            "late": verdict.late,
            "verdict": verdict.verdict,
            "a": vars(self.a),
            "b": vars(self.b),
            "auc_difference": {
                "value": value,
                "interval": interval,
                "b_better": verdict.auc_above,
                "samples": verdict.samples,
            },
            "decisions": [
                {"a": bool(a), "b": bool(b), "loans": rate.loans, "late": rate.late,
                 "late_rate": rate.rate, "interval": [rate.low, rate.high]}
                if rate
                else {"a": bool(a), "b": bool(b), "loans": 0, "late": 0, "late_rate": None,
                      "interval": None}
                for a, row in enumerate(self.decisions)
                for b, rate in enumerate(row)
            ],
            "bands": {
                band_of_a: dict(zip(BANDS, row, strict=True))
                for band_of_a, row in zip(BANDS, self.band_moves, strict=True)
            },
        }  # fmt: skip


def compare(
    a: Bundle,
    b: Bundle,
    loans_a: Loans,
    loans_b: Loans,
    late: Numbers,
    samples: int = SAMPLES,
) -> Comparison:
    """Compare two versions on the same loans, read by the definition of each version.

    `late` (n,) is 1 for each late loan, in the order of both tables. `samples` is the number of
    bootstrap samples. Raises ValueError if the tables differ in size, or if all loans have the same
    outcome.
    """
    scored_a, scored_b = _score(a, loans_a), _score(b, loans_b)
    verdict = judge_challenger(scored_a, scored_b, late, equal_groups(loans_a, late), samples)
    bands = a.policy.bands_many(scored_a.margins), b.policy.bands_many(scored_b.margins)
    moved = np.bincount(bands[0] * len(BANDS) + bands[1], minlength=len(BANDS) ** 2)
    flagged = a.policy.late_many(scored_a.margins), b.policy.late_many(scored_b.margins)
    return Comparison(
        _figures(a, scored_a, late, verdict.auc.champion),
        _figures(b, scored_b, late, verdict.auc.challenger),
        verdict,
        decisions=_decided(*flagged, late),
        band_moves=tuple(tuple(row) for row in moved.reshape(len(BANDS), -1).tolist()),
    )


def _score(bundle: Bundle, loans: Loans) -> ModelScores:
    margins = bundle.model.margins(loans)
    return ModelScores(margins, probabilities(margins))


def _figures(bundle: Bundle, scored: ModelScores, late: Numbers, auc: float) -> VersionFigures:
    margins, p = scored
    flagged = bundle.policy.late_many(margins)
    slope, intercept = regress_on_margins(margins, late)
    return VersionFigures(
        bundle.version,
        auc,
        float(np.mean(squared_errors(p, late))),
        slope,
        intercept,
        float(p.mean()),
        bundle.policy.threshold,
        float(flagged.mean()),
        float(flagged[late == 1].mean()),
    )


def _decided(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], late: Numbers
) -> tuple[tuple[Rate | None, Rate | None], tuple[Rate | None, Rate | None]]:
    """Compute the late rate of each pair of decisions of A and B (n,)."""

    def rate(by_a: bool, by_b: bool) -> Rate | None:
        outcomes = late[(a == by_a) & (b == by_b)]
        return Rate.of(int(outcomes.sum()), len(outcomes)) if len(outcomes) else None

    return (rate(False, False), rate(False, True)), (rate(True, False), rate(True, True))
