"""Is a challenger better than the champion on the same loans? A paired bootstrap answers.

`peerloan models compare` and the monitor both take their verdict from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.calibration import log_losses, squared_errors
from peerloan.stats.discrimination import LEAST_OF_A_KIND, ScoreCounts, auc_of_counts
from peerloan.stats.estimate import Estimate

SAMPLES = 1_000
_ENDS = (0.025, 0.975)
# What only rounding makes is no difference: a version whose log-odds are shifted and scaled ranks
# loans as before, but for ties that the last digit of its tables makes or breaks.
_ROUNDING = 1e-6

Verdict = Literal["better", "worse", "no difference"]


class ModelScores(NamedTuple):
    """What one version says of loans (n,): log-odds, and the probabilities that it shows."""

    margins: Numbers
    probabilities: Numbers


class FigureComparison(NamedTuple):
    """A figure of both versions, and the challenger's less the champion's."""

    champion: float
    challenger: float
    difference: Estimate


@dataclass(frozen=True)
class ChallengerVerdict:
    """What the same loans say of two versions.

    A high AUC is good, and a low Brier score and log loss. `auc_above` is the share of the samples
    in which the challenger's AUC is the higher one, plus half of those in which both are equal.
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
        """Whether the challenger is better.

        It is if it is better in ranking (AUC) or in its probabilities (log loss), beyond what
        chance explains, and worse in neither. Of fewer than five loans of a kind nothing is said:
        a bootstrap of so few knows no others.
        """
        if min(self.late, self.loans - self.late) < LEAST_OF_A_KIND:
            return "no difference"
        auc, loss = self.auc.difference, self.log_loss.difference
        if auc.high < -_ROUNDING or loss.low > _ROUNDING:
            return "worse"
        return "better" if auc.low > _ROUNDING or loss.high < -_ROUNDING else "no difference"


class BootstrapFigures(NamedTuple):
    """Figures of bootstrap samples.

    The AUC of champion and challenger (samples, 2), and the challenger's Brier score and log loss
    less the champion's (samples,).
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

    Raises ValueError unless there are late loans and others, and as many of everything. `groups`
    and the samples are those of `resample`.
    """
    n, n_late = len(late), int(late.sum())
    pair = (champion, challenger)
    if not len(champion.margins) == len(challenger.margins) == n:
        sizes = " and ".join(str(len(scored.margins)) for scored in pair)
        raise ValueError(f"the scores of {sizes} loans can't be compared on {n} loans")
    if not 0 < n_late < n:
        raise ValueError(f"expected late loans and others, given {n_late} late of {n}")
    drawn = resample(champion, challenger, late, groups, samples, seed)
    aucs = [float(auc_of_counts(*ScoreCounts.of(scored.margins, late))) for scored in pair]
    losses = [_losses(scored, late).mean(axis=1).tolist() for scored in pair]
    gains = drawn.auc[:, 1] - drawn.auc[:, 0]
    return ChallengerVerdict(
        n,
        n_late,
        samples,
        auc=_compared(aucs[0], aucs[1], gains),
        brier=_compared(losses[0][0], losses[1][0], drawn.brier),
        log_loss=_compared(losses[0][1], losses[1][1], drawn.log_loss),
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
    """Both versions' figures on bootstrap samples that they share (B. Efron 1979).

    Paired, as J. A. Hanley and B. J. McNeil (1983) ask, because two models on the same loans err
    alike. Stratified by outcome, as X. Robin et al. (2011, pROC) do: an AUC compares late loans
    with others, whatever the share of each, so every sample has as many of each as the book, and
    none has one kind alone.

    Brier score and log loss depend on that share, which is a matter of chance too. It is drawn
    beside the loans, from its binomial distribution. With the book's own share in every sample, a
    version whose level merely happens to fit this book would be sure to be better.

    Loans of one group (n,) are drawn together: copies of a loan say no more than it does alone.
    """
    random = np.random.default_rng(seed)
    strata = [_Stratum.of(kind, groups) for kind in (late == 1, late != 1)]
    rankings = [_Ranking.of(scored.margins, late) for scored in (champion, challenger)]
    changes = _losses(challenger, late) - _losses(champion, late)
    # Of each kind of loans (3, n): both changes, and 1 to count them.
    terms = [np.vstack([changes[:, kind.rows], np.ones(len(kind.rows))]) for kind in strata]
    auc = np.empty((samples, 2))
    sums = np.empty((samples, 2, 3))
    for sample in range(samples):
        times = [stratum.draw(random) for stratum in strata]
        auc[sample] = [ranking.auc(*times) for ranking in rankings]
        sums[sample] = [term @ count for term, count in zip(terms, times, strict=True)]
    sizes = [stratum.size for stratum in strata]
    drawn = random.binomial(sum(sizes), sizes[0] / sum(sizes), samples)
    kinds = np.stack([drawn, sum(sizes) - drawn], axis=1) / sizes
    brier, log_loss, loans = (sums * kinds[:, :, np.newaxis]).sum(axis=1).T
    return BootstrapFigures(auc, brier / loans, log_loss / loans)


class _Stratum(NamedTuple):
    """Loans of one kind: their rows in the book (n,), each one's group, and how many groups."""

    rows: Codes
    group: Codes | None
    size: int

    @classmethod
    def of(cls, kind: npt.NDArray[np.bool_], groups: Codes | None) -> _Stratum:
        rows = np.flatnonzero(kind)
        if groups is None:
            return cls(rows, None, len(rows))
        different, group = np.unique(groups[rows], return_inverse=True)
        return cls(rows, group, len(different))

    def draw(self, random: np.random.Generator) -> Numbers:
        """How many times each loan (n,) is in a sample."""
        drawn = random.integers(0, self.size, self.size)
        times = np.bincount(drawn, minlength=self.size).astype(np.float64)
        return times if self.group is None else times[self.group]


class _Ranking(NamedTuple):
    """The places of late loans' margins and of the others' among all different ones."""

    late: Codes
    on_time: Codes
    places: int

    @classmethod
    def of(cls, margins: Numbers, late: Numbers) -> _Ranking:
        different, place = np.unique(margins, return_inverse=True)
        return cls(place[late == 1], place[late != 1], len(different))

    def auc(self, late: Numbers, on_time: Numbers) -> float:
        """The AUC if late loans and the others are there so many times each."""
        return float(
            auc_of_counts(
                np.bincount(self.late, late, self.places),
                np.bincount(self.on_time, on_time, self.places),
            )
        )


def _losses(scored: ModelScores, late: Numbers) -> Numbers:
    """Brier and log loss of each loan (2, n)."""
    return np.array([squared_errors(scored.probabilities, late), log_losses(scored.margins, late)])


def _compared(champion: float, challenger: float, differences: Numbers) -> FigureComparison:
    low, high = np.quantile(differences, _ENDS).tolist()
    return FigureComparison(champion, challenger, Estimate(challenger - champion, low, high))
