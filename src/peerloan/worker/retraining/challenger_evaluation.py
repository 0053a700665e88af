"""Judging a challenger against the champion, on loans that neither has learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from peerloan.book import Book, EqualRows, read_loans
from peerloan.model import probabilities
from peerloan.registry import Bundle
from peerloan.reports.wording import signed
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.auc_interval import LEAST
from peerloan.stats.estimate import Estimate

SAMPLES = 1_000
_ENDS = (0.025, 0.975)
# What only rounding makes is no difference: a version whose log-odds are shifted and scaled ranks
# loans as before, but for ties that the last digit of its tables makes or breaks.
_NOTHING = 1e-6

Verdict = Literal["better", "worse", "no difference"]


class Compared(NamedTuple):
    """A figure of both versions, and the challenger's less the champion's."""

    champion: float
    challenger: float
    difference: Estimate


@dataclass(frozen=True)
class Judgement:
    """What the same loans say of two versions. A high AUC is good, and a low Brier score and log
    loss.
    """

    loans: int
    late: int
    samples: int
    auc: Compared
    brier: Compared
    log_loss: Compared

    @property
    def verdict(self) -> Verdict:
        """Whether the challenger is better: in ranking (AUC) or in its probabilities (log loss),
        beyond what chance explains, and in neither of them worse. Of fewer than five loans of a
        kind nothing is said: a bootstrap of so few knows no others.
        """
        if min(self.late, self.loans - self.late) < LEAST:
            return "no difference"
        gains = (self.auc.difference, _turned(self.log_loss.difference))
        if any(each.high < -_NOTHING for each in gains):
            return "worse"
        return "better" if any(each.low > _NOTHING for each in gains) else "no difference"

    def as_json(self) -> dict[str, Any]:
        """The figures as an event tells them."""
        figures = {"auc": self.auc, "brier": self.brier, "log_loss": self.log_loss}
        shown = {
            name: each._asdict() | {"difference": each.difference._asdict()}
            for name, each in figures.items()
        }
        return {"verdict": self.verdict, "loans": self.loans, "late": self.late} | shown

    def sentence(self) -> str:
        """The figures in words."""
        figures = [("AUC", self.auc), ("log loss", self.log_loss), ("Brier score", self.brier)]
        shown = "; ".join(
            f"{name} {each.challenger:.4f} ({signed(each.difference.value, 4)}: "
            f"{signed(each.difference.low, 4)} to {signed(each.difference.high, 4)})"
            for name, each in figures
        )
        return (
            f"on the newest {self.loans:,} loans ({self.late:,} late), and less the champion's "
            f"with 95 % intervals: {shown}"
        )


def judge(champion: Bundle, challenger: Bundle, newest: Book) -> Judgement:
    """Score a book by both versions and compare them; every row must be one that both can read.

    Raises BookError, or ValueError if the book has not both late loans and others.
    """
    margins: tuple[list[Numbers], list[Numbers]] = ([], [])
    late, equal = [], EqualRows()
    for part in newest.parts():
        for bundle, own in zip((champion, challenger), margins, strict=True):
            batch = read_loans(bundle.definition, part, label=True)
            own.append(bundle.score_many(batch.loans)[0])
        late.append(np.asarray(batch.labels, dtype=np.float64))
        equal.add(batch.loans, batch.labels)
    first, second = map(np.concatenate, margins)
    return compared(first, second, np.concatenate(late), groups=equal.groups())


def compared(
    champion: Numbers,
    challenger: Numbers,
    late: Numbers,
    samples: int = SAMPLES,
    seed: int = 0,
    groups: Codes | None = None,
) -> Judgement:
    """Compare margins (n,) of two versions on the same loans; `late` (n,) is 1 or 0.

    The intervals are of a paired bootstrap (B. Efron 1979, Bootstrap methods: another look at the
    jackknife, The Annals of Statistics 7): loans are drawn with repetition, both versions are
    measured on each draw, and the middle 95 % of the differences are kept. Whole loans are drawn,
    late and other ones alike, as the share of late ones is a matter of chance too. Loans of one
    group (n,) are drawn together: copies of a loan say no more than it does alone. Raises
    ValueError unless there are late loans and others, and as many of everything.
    """
    n, n_late = len(late), int(late.sum())
    if not len(champion) == len(challenger) == n:
        raise ValueError(f"{len(champion)}, {len(challenger)} and {n} loans can't be compared")
    if not 0 < n_late < n:
        raise ValueError(f"expected late loans and others, given {n_late} late of {n}")
    pair = (champion, challenger)
    ranked = [_Ranked.of(each, late) for each in pair]
    # Of each loan (versions, figures, n); a mean of them is the figure.
    each_loan = np.array([[_brier(margins, late), _log_loss(margins, late)] for margins in pair])
    of_loan = (each_loan[1] - each_loan[0]).T
    random = np.random.default_rng(seed)
    drawn = np.empty((samples, 3))
    drawable = n if groups is None else int(groups.max()) + 1
    for sample in range(samples):
        times = np.bincount(random.integers(0, drawable, drawable), minlength=drawable)
        times = times if groups is None else times[groups]
        drawn[sample, 0] = ranked[1].auc(times) - ranked[0].auc(times)
        drawn[sample, 1:] = times @ of_loan / times.sum()
    once = np.ones(n, dtype=np.int64)
    aucs = [each.auc(once) for each in ranked]
    brier, log_loss = each_loan.mean(axis=2).T.tolist()
    found = [
        Compared(before, after, _estimate(after - before, column))
        for (before, after), column in zip((aucs, brier, log_loss), drawn.T, strict=True)
    ]
    return Judgement(n, n_late, samples, *found)


@dataclass(frozen=True)
class _Ranked:
    """The order of loans by rising margin, and which of them in it are late; the late loans, and
    where in the order those begin and end that share each one's margin.
    """

    order: npt.NDArray[np.int64]
    of_late: npt.NDArray[np.bool_]
    late: npt.NDArray[np.int64]
    low: npt.NDArray[np.int64]
    high: npt.NDArray[np.int64]

    @classmethod
    def of(cls, margins: Numbers, late: Numbers) -> _Ranked:
        order = np.argsort(margins, kind="stable")
        rising = margins[order]
        of_late = late[order] == 1
        own = rising[of_late]
        return cls(
            order,
            of_late,
            order[of_late],
            np.searchsorted(rising, own, side="left"),
            np.searchsorted(rising, own, side="right"),
        )

    def auc(self, times: npt.NDArray[np.int64]) -> float:
        """How often a late loan's margin is above another's, a tie counting half, if each loan is
        there so many times (n,); NaN if one kind is not there at all.
        """
        others = times[self.order]
        others[self.of_late] = 0
        below = np.concatenate([[0], np.cumsum(others)])
        late = times[self.late]
        pairs = 2 * int(late.sum()) * int(below[-1])
        # Twice the others below, a tie counting half: whole numbers, so the sum is exact.
        doubled = late @ (below[self.low] + below[self.high])
        return float(doubled) / pairs if pairs else float("nan")


def _brier(margins: Numbers, late: Numbers) -> Numbers:
    return (probabilities(margins) - late) ** 2


def _log_loss(margins: Numbers, late: Numbers) -> Numbers:
    """From margins: a probability that is shown as 0 has a logarithm too."""
    return np.logaddexp(0, np.where(late == 1, -margins, margins))


def _estimate(value: float, drawn: Numbers) -> Estimate:
    low, high = np.quantile(drawn[~np.isnan(drawn)], _ENDS).tolist()
    return Estimate(value, low, high)


def _turned(estimate: Estimate) -> Estimate:
    """A figure that is good if it falls, as one that is good if it rises."""
    return Estimate(-estimate.value, -estimate.high, -estimate.low)
