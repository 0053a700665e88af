"""Two versions side by side on the same loans: which is better, and whose decision changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from peerloan.loan import Loans
from peerloan.loan.text import counted
from peerloan.model import BANDS, probabilities
from peerloan.registry import Bundle
from peerloan.reports.wording import percent, show_rate, signed
from peerloan.stats import measures
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.measures import Rate
from peerloan.training.calibration import reliability
from peerloan.training.folds import equal_groups

_ENDS = (0.025, 0.975)
_NAMES = (
    "AUC",
    "Brier score",
    "calibration slope",
    "calibration intercept",
    "expected late rate",
    "observed / expected",
    "threshold",
    "flagged",
    "recall",
)


@dataclass(frozen=True)
class Figures:
    """One version on the book: ranking, probabilities and decisions.

    `slope` and `intercept` are those of the outcome regressed on the margin (1 and 0 are perfect);
    `expected` is the mean probability.
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
    """What A and B say of the same loans.

    `difference` is B's AUC less A's, `interval` its 95 % interval and `better` the share of the
    samples in which it is above 0 (half of those in which it is 0). `decided[a][b]` are the loans
    that A (0 no, 1 yes) and B decide so, None where there are none; `moved[a][b]` the loans that
    are in A's and B's band of this place.
    """

    a: Figures
    b: Figures
    loans: int
    late: int
    difference: float
    interval: tuple[float, float]
    better: float
    samples: int
    decided: tuple[tuple[Rate | None, Rate | None], tuple[Rate | None, Rate | None]]
    moved: tuple[tuple[int, ...], ...]

    def lines(self) -> list[str]:
        """The comparison as text."""
        observed = Rate.of(self.late, self.loans)
        rows = [
            ("", self.a.version, self.b.version),
            *zip(_NAMES, *map(self._cells, (self.a, self.b)), strict=True),
        ]
        return [
            f"{counted(self.loans, 'loan')}, {self.late:,} late: {show_rate(observed)}",
            f"A is {self.a.version}, B is {self.b.version}",
            "",
            *_columns(rows),
            "",
            f"AUC of B less that of A: {signed(self.difference, 4)} (95 % interval "
            f"{signed(self.interval[0], 4)} to {signed(self.interval[1], 4)})",
            f"B is better in {percent(self.better)} of "
            f"{counted(self.samples, 'bootstrap sample')}: {self._verdict()}",
            "",
            *self._decisions(),
            "",
            "bands (rows A, columns B):",
            *_columns(
                [
                    ("", *BANDS),
                    *(
                        (band, *(f"{count:,}" for count in row))
                        for band, row in zip(BANDS, self.moved, strict=True)
                    ),
                ]
            ),
        ]

    def to_json(self) -> dict[str, Any]:
        """The same as plain data, under names instead of places."""
        return {
            "loans": self.loans,
            "late": self.late,
            "a": vars(self.a),
            "b": vars(self.b),
            "auc_difference": {
                "value": self.difference,
                "interval": list(self.interval),
                "b_better": self.better,
                "samples": self.samples,
            },
            "decisions": [
                {"a": bool(a), "b": bool(b), "loans": each.loans, "late": each.late,
                 "late_rate": each.rate, "interval": [each.low, each.high]}
                if each
                else {"a": bool(a), "b": bool(b), "loans": 0, "late": 0, "late_rate": None,
                      "interval": None}
                for a, row in enumerate(self.decided)
                for b, each in enumerate(row)
            ],
            "bands": {
                before: dict(zip(BANDS, row, strict=True))
                for before, row in zip(BANDS, self.moved, strict=True)
            },
        }  # fmt: skip

    def _cells(self, each: Figures) -> tuple[str, ...]:
        return (
            f"{each.auc:.4f}",
            f"{each.brier:.5f}",
            signed(each.slope),
            signed(each.intercept),
            percent(each.expected),
            f"{self.late / self.loans / each.expected:.2f}",
            percent(each.threshold),
            percent(each.flagged),
            percent(each.recall),
        )

    def _verdict(self) -> str:
        low, high = self.interval
        if low > 0:
            return "B ranks better."
        if high < 0:
            return "A ranks better."
        return "no difference that these loans could show."

    def _decisions(self) -> list[str]:
        changed = sum(each.loans for each in (self.decided[0][1], self.decided[1][0]) if each)
        verb = "is" if changed == 1 else "are"
        share = percent(changed / self.loans)
        said = [f"{counted(changed, 'loan')} ({share}) {verb} decided differently:"]
        for a, b, what in (
            (0, 0, "no by both"),
            (0, 1, "no by A, yes by B"),
            (1, 0, "yes by A, no by B"),
            (1, 1, "yes by both"),
        ):
            each = self.decided[a][b]
            shown = f"{counted(each.loans, 'loan')}, late {show_rate(each)}" if each else "no loans"
            said.append(f"  {what}: {shown}")
        return said


def compare(
    a: Bundle,
    b: Bundle,
    loans_a: Loans,
    loans_b: Loans,
    late: Numbers,
    samples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compare two versions on the same loans, each read by its own version's definition.

    `late` (n,) is 1 for each late loan, in the order of both tables. Raises ValueError if the
    tables aren't of one size, or if not both late loans and others are among them.
    """
    if not loans_a.size == loans_b.size == len(late):
        raise ValueError(f"{loans_a.size}, {loans_b.size} and {len(late)} loans can't be compared")
    bad = int(late.sum())
    if not 0 < bad < len(late):
        raise ValueError(f"expected late loans and others, given {bad} late of {len(late)}")
    margins_a, margins_b = a.model.margins(loans_a), b.model.margins(loans_b)
    figures = (_figures(a, margins_a, late), _figures(b, margins_b, late))
    groups = equal_groups(loans_a, late)
    differences = np.subtract(*auc_samples((margins_b, margins_a), late, samples, seed, groups))
    bands = a.policy.bands_many(margins_a), b.policy.bands_many(margins_b)
    moved = np.bincount(bands[0] * len(BANDS) + bands[1], minlength=len(BANDS) ** 2)
    low, high = np.quantile(differences, _ENDS).tolist()
    return Comparison(
        *figures,
        loans=len(late),
        late=bad,
        difference=figures[1].auc - figures[0].auc,
        interval=(low, high),
        better=float(((differences > 0) + 0.5 * (differences == 0)).mean()),
        samples=samples,
        decided=_decided(a.policy.late_many(margins_a), b.policy.late_many(margins_b), late),
        moved=tuple(tuple(row) for row in moved.reshape(len(BANDS), -1).tolist()),
    )


def auc_samples(
    margins: Sequence[Numbers],
    late: Numbers,
    samples: int,
    seed: int,
    groups: Codes | None = None,
) -> tuple[Numbers, ...]:
    """The AUC (samples,) of each margins (n,) on bootstrap samples that all of them share.

    Late loans and others are drawn apart, so that every sample has as many of each as the book:
    the stratified bootstrap of Robin et al. (2011), pROC; pairing as Hanley and McNeil (1983) ask,
    because two models on the same loans err alike. The AUC of a sample is the Mann–Whitney
    statistic of counts: margins are ranked once, and a draw only counts ranks. Loans of one group
    are drawn together: copies of a loan say no more than it does alone.
    """
    random = np.random.default_rng(seed)
    ranked = [_Ranked.of(each, late) for each in margins]
    draws = [
        _Draw(int(own.sum()), None if groups is None else groups[own])
        for own in (late == 1, late != 1)
    ]
    found = np.empty((len(ranked), samples))
    for sample in range(samples):
        bad, others = (draw.rows(random) for draw in draws)
        for place, each in enumerate(ranked):
            found[place, sample] = each.auc(bad, others)
    return tuple(found)


class _Draw:
    """Loans of one kind (n) that are drawn with repetition, by groups where there are any."""

    def __init__(self, loans: int, groups: Codes | None) -> None:
        self._size, self._order = loans, None
        if groups is not None:
            _, counts = np.unique(groups, return_counts=True)
            self._size, self._order = len(counts), np.argsort(groups, kind="stable")
            self._counts, self._starts = counts, np.cumsum(counts) - counts

    def rows(self, random: np.random.Generator) -> Codes:
        """The rows of a draw."""
        drawn = random.integers(0, self._size, self._size)
        if self._order is None:
            return drawn
        counts = self._counts[drawn]
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows: Codes = self._order[np.repeat(self._starts[drawn], counts) + within]
        return rows


@dataclass(frozen=True)
class _Ranked:
    """Late and other loans by the place of their margin among all different ones."""

    late: npt.NDArray[np.int64]
    other: npt.NDArray[np.int64]
    places: int

    @classmethod
    def of(cls, margins: Numbers, late: Numbers) -> _Ranked:
        different, place = np.unique(margins, return_inverse=True)
        return cls(place[late == 1], place[late != 1], len(different))

    def auc(self, late: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> float:
        """The AUC of these draws of late and of other loans, which may name one more than once."""
        counts = np.bincount(self.other[other], minlength=self.places)
        below = np.cumsum(counts)
        # Twice the others below, a tie counting half: whole numbers, so the sum is exact.
        doubled = (2 * below - counts)[self.late[late]].sum()
        return float(doubled) / (2 * len(late) * len(other))


def _figures(bundle: Bundle, margins: Numbers, late: Numbers) -> Figures:
    p = probabilities(margins)
    flagged = bundle.policy.late_many(margins)
    calibration = reliability(margins, late)
    auc = measures.auc(margins, late.astype(np.int64))
    assert auc is not None  # noqa: S101  there are loans of both kinds
    return Figures(
        bundle.version,
        auc,
        float(np.mean((p - late) ** 2)),
        calibration.slope,
        calibration.intercept,
        float(p.mean()),
        bundle.policy.threshold,
        float(flagged.mean()),
        float(flagged[late == 1].mean()),
    )


def _decided(
    a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_], late: Numbers
) -> tuple[tuple[Rate | None, Rate | None], tuple[Rate | None, Rate | None]]:
    def rate(a_says: bool, b_says: bool) -> Rate | None:
        own = late[(a == a_says) & (b == b_says)]
        return Rate.of(int(own.sum()), len(own)) if len(own) else None

    return (rate(False, False), rate(False, True)), (rate(True, False), rate(True, True))


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
