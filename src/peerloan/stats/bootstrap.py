"""Compare a challenger with the champion on the same loans, by a paired bootstrap.

`peerloan models compare` and the monitor both use this comparison and its verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.calibration import log_losses, squared_errors
from peerloan.stats.discrimination import MIN_LOANS_PER_OUTCOME, ScoreCounts, auc_of_counts
from peerloan.stats.estimate import Estimate

SAMPLES = 1_000
# The quantiles at the ends of a 95 % interval.
_ENDS = (0.025, 0.975)
# Smaller differences are rounding errors. For example, recalibration shifts and scales the log-odds
# of a version: loans keep their ranks, except for ties that rounding creates or removes.
_ROUNDING = 1e-6

Verdict = Literal["better", "worse", "no difference"]


class ModelScores(NamedTuple):
    """One version's scores of loans: log-odds (n,) and the rounded probabilities (n,)."""

    margins: Numbers
    probabilities: Numbers


class FigureComparison(NamedTuple):
    """A figure of both versions, and the difference: the challenger's minus the champion's."""

    champion: float
    challenger: float
    difference: Estimate


@dataclass(frozen=True)
class ChallengerVerdict:
    """The comparison of two versions on the same loans.

    A high AUC is good, and so is a low Brier score or log loss. `auc_above` is the share of the
    bootstrap samples in which the challenger's AUC is higher than the champion's; a sample in which
    both are equal counts half.
    """

    loans: int
    late: int
    samples: int
    auc: FigureComparison
    brier: FigureComparison
    log_loss: FigureComparison
    auc_above: float

    @property
    def verdict(self) -> Verdict:
        """Whether the challenger is better than the champion, worse, or neither.

        It is better if its ranking (AUC) or its probabilities (log loss) are significantly better
        and neither is significantly worse: the 95 % interval of the difference excludes 0. With
        fewer than five late loans, or fewer than five on time, the verdict is "no difference": a
        bootstrap of so few loans understates the uncertainty.
        """
        if min(self.late, self.loans - self.late) < MIN_LOANS_PER_OUTCOME:
            return "no difference"
        auc, loss = self.auc.difference, self.log_loss.difference
        if auc.high < -_ROUNDING or loss.low > _ROUNDING:
            return "worse"
        return "better" if auc.low > _ROUNDING or loss.high < -_ROUNDING else "no difference"


class BootstrapFigures(NamedTuple):
    """Figures of bootstrap samples.

    `auc` is the AUC of champion and challenger (samples, 2). `brier` and `log_loss` are differences
    (samples,): the challenger's figure minus the champion's.
    """

    auc: Numbers
    brier: Numbers
    log_loss: Numbers


def judge_challenger(
    champion: ModelScores,
    challenger: ModelScores,
    late: Numbers,
    groups: Codes | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
) -> ChallengerVerdict:
    """Compare two versions on the same loans; `late` (n,) is 1 or 0.

    See `resample` on `groups`, `samples` and `seed`. Raises ValueError if the arrays differ in
    length, or if all loans have the same outcome.
    """
    n, n_late = len(late), int(late.sum())
    pair = (champion, challenger)
    if not len(champion.margins) == len(challenger.margins) == n:
        sizes = " and ".join(str(len(scored.margins)) for scored in pair)
        raise ValueError(f"the scores of {sizes} loans can't be compared on {n} loans")
    if not 0 < n_late < n:
        raise ValueError(f"expected late loans and others, given {n_late} late of {n}")
    resampled = resample(champion, challenger, late, groups, samples, seed)
    aucs = [float(auc_of_counts(*ScoreCounts.of(scored.margins, late))) for scored in pair]
    losses = [_losses(scored, late).mean(axis=1).tolist() for scored in pair]
    gains = resampled.auc[:, 1] - resampled.auc[:, 0]
    return ChallengerVerdict(
        n,
        n_late,
        samples,
        auc=_compare(aucs[0], aucs[1], gains),
        brier=_compare(losses[0][0], losses[1][0], resampled.brier),
        log_loss=_compare(losses[0][1], losses[1][1], resampled.log_loss),
        auc_above=float(((gains > 0) + 0.5 * (gains == 0)).mean()),
    )


def resample(
    champion: ModelScores,
    challenger: ModelScores,
    late: Numbers,
    groups: Codes | None,
    samples: int,
    seed: int,
) -> BootstrapFigures:
    """Compute both versions' figures on the same bootstrap samples (B. Efron 1979).

    - The samples are paired, as J. A. Hanley and B. J. McNeil (1983) recommend: the errors of two
      models on the same loans are correlated.
    - They are stratified by outcome, as in pROC (X. Robin et al. 2011). An AUC compares late loans
      with loans on time and does not depend on their shares. So each sample has as many late loans
      as the book, and no sample has one outcome only.
    - Brier score and log loss do depend on the late rate, which varies by chance too. It is drawn
      for each sample from its binomial distribution. If it were fixed, a version whose mean
      probability happens to fit this book would always look better.
    - Loans with the same number in `groups` (n,) are drawn together: copies of one loan carry no
      more information than one.

    The same `seed` gives the same samples.
    """
    random = np.random.default_rng(seed)
    strata = [_Stratum.of(kind, groups) for kind in (late == 1, late != 1)]
    rankings = [_Ranking.of(scored.margins, late) for scored in (champion, challenger)]
    changes = _losses(challenger, late) - _losses(champion, late)
    # For each stratum (3, n): both differences of losses, and 1 to count the loans.
    terms = [
        np.vstack([changes[:, stratum.rows], np.ones(len(stratum.rows))]) for stratum in strata
    ]
    auc = np.empty((samples, 2))
    sums = np.empty((samples, 2, 3))
    for sample in range(samples):
        counts = [stratum.draw(random) for stratum in strata]
        auc[sample] = [ranking.auc(*counts) for ranking in rankings]
        sums[sample] = [term @ count for term, count in zip(terms, counts, strict=True)]
    sizes = [stratum.size for stratum in strata]
    n_late = random.binomial(sum(sizes), sizes[0] / sum(sizes), samples)
    weights = np.stack([n_late, sum(sizes) - n_late], axis=1) / sizes
    brier, log_loss, loans = (sums * weights[:, :, np.newaxis]).sum(axis=1).T
    return BootstrapFigures(auc, brier / loans, log_loss / loans)


class _Stratum(NamedTuple):
    """The loans of one outcome: their rows in the book (n,), their groups, and how many groups."""

    rows: Codes
    group: Codes | None
    size: int

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_], groups: Codes | None) -> _Stratum:
        rows = np.flatnonzero(mask)
        if groups is None:
            return cls(rows, None, len(rows))
        distinct, group = np.unique(groups[rows], return_inverse=True)
        return cls(rows, group, len(distinct))

    def draw(self, random: np.random.Generator) -> Numbers:
        """Draw a sample: how many times it contains each loan (n,)."""
        drawn = random.integers(0, self.size, self.size)
        counts = np.bincount(drawn, minlength=self.size).astype(np.float64)
        return counts if self.group is None else counts[self.group]


class _Ranking(NamedTuple):
    """The ranks of the margins of late loans (n_late,) and loans on time (n_on_time,), from 0.

    `ranks` is the number of distinct margins.
    """

    late: Codes
    on_time: Codes
    ranks: int

    @classmethod
    def of(cls, margins: Numbers, late: Numbers) -> _Ranking:
        distinct, rank = np.unique(margins, return_inverse=True)
        return cls(rank[late == 1], rank[late != 1], len(distinct))

    def auc(self, late_counts: Numbers, on_time_counts: Numbers) -> float:
        """The AUC of a sample that contains each loan so many times."""
        return float(
            auc_of_counts(
                np.bincount(self.late, late_counts, self.ranks),
                np.bincount(self.on_time, on_time_counts, self.ranks),
            )
        )


def _losses(scored: ModelScores, late: Numbers) -> Numbers:
    """The squared error and the log loss of each loan (2, n)."""
    return np.array([squared_errors(scored.probabilities, late), log_losses(scored.margins, late)])


def _compare(champion: float, challenger: float, differences: Numbers) -> FigureComparison:
    low, high = np.quantile(differences, _ENDS).tolist()
    return FigureComparison(champion, challenger, Estimate(challenger - champion, low, high))
