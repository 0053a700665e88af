"""How often alerts fire in simulated windows, without drift and with the drift of scenarios.

Windows without drift are drawn from the loans of the `calm` scenario. Their outcomes are drawn by
the version's probabilities, so every alert is a false alarm.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from rich.table import Table

from peerloan.loan import Loans
from peerloan.model import probabilities
from peerloan.monitoring.alerts import rules
from peerloan.monitoring.alerts.rules import Alert, Rules
from peerloan.monitoring.counting.bins import LevelBins
from peerloan.monitoring.counting.counts import BinCounter
from peerloan.monitoring.performance import ObservedCalibration, Scores
from peerloan.registry import Bundle
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.discrimination import auc_of_counts
from peerloan.stats.estimate import Estimate
from peerloan.stats.psi import Psi, psi

# Windows to count at once.
_AT_ONCE = 500
# The PSI of a feature without drift.
_STILL = Psi(0.0, 0.0, 1.0)


class Window(NamedTuple):
    """The loans of a window: row numbers, counts in the bins of all columns, and scores."""

    rows: Codes
    bins: Codes
    scores: Scores


@dataclass(frozen=True)
class Drawn:
    """A book from which windows are drawn.

    `places` are the bins of each loan (columns, loans). `late` has the outcomes; None: they are
    drawn by each loan's probability.
    """

    bundle: Bundle
    counting: BinCounter
    margins: Numbers
    places: Codes
    late: Codes | None

    @classmethod
    def of(cls, bundle: Bundle, loans: Loans, late: Codes | None = None) -> Drawn:
        """Take all loans of a book."""
        counting = BinCounter.of(bundle)
        margins = bundle.score_many(loans)[0]
        columns = [*(loans.columns[name] for name in loans.definition.names)]
        columns.append(probabilities(margins))
        places = [bins.places(column) for bins, column in zip(counting.bins, columns, strict=True)]
        return cls(bundle, counting, margins, np.stack(places), late)

    @property
    def ends(self) -> Codes:
        """The end of each column's bins."""
        return np.cumsum([bins.size for bins in self.counting.bins])

    def windows(self, size: int, count: int, seed: int) -> Iterator[Window]:
        """Draw `count` windows of `size` loans, with replacement."""
        random = np.random.default_rng(seed)
        width = int(self.ends[-1])
        starts = self.ends - [bins.size for bins in self.counting.bins]
        shifted = self.places + starts[:, np.newaxis]
        p = probabilities(self.margins)
        for first in range(0, count, _AT_ONCE):
            some = min(_AT_ONCE, count - first)
            rows = random.integers(0, len(p), (some, size))
            late = random.random(rows.shape) < p[rows]
            if self.late is not None:
                late = self.late[rows] == 1
            flat = shifted[:, rows] + np.arange(some)[:, np.newaxis] * width
            bins = np.bincount(flat.ravel(), minlength=some * width).reshape(some, width)
            for i in range(some):
                scores = Scores.of(self.margins[rows[i]], late[i].astype(np.int64))
                yield Window(rows[i], bins[i], scores)


def speak(drawn: Drawn, window: Window, limits: Rules) -> list[Alert]:
    """Return the alerts of a window whose outcomes are all known, as monitoring computes them.

    To save time, figures that can't fire are not computed completely.
    """
    counting, scores = drawn.counting, window.scores
    columns = np.split(window.bins, drawn.ends[:-1])
    features = dict(zip(counting.names, _drift(drawn, columns, limits), strict=True))
    score = features.pop(counting.names[-1])
    size = len(window.rows)
    new = {
        name: Estimate.of_share(int(counts[-2]), size, rules.SIGNIFICANCE)
        for name, bins, counts in zip(counting.names, counting.bins, columns, strict=True)
        if isinstance(bins, LevelBins) and counts[-2]
    }
    published = drawn.bundle.manifest.intervals.get("auc")
    estimated = realised = None
    if published is not None and _expected_auc(scores) < published[0]:
        estimated = scores.estimated(drawn.bundle.policy).auc
        estimated = estimated and estimated.with_significance(rules.SIGNIFICANCE)
    if published is not None and _auc(scores) < published[0]:
        realised = scores.realised_auc(rules.SIGNIFICANCE)
    assert scores.late is not None
    late, expected = int(scores.late.sum()), float(scores.loans @ probabilities(scores.margins))
    ratio = Estimate(late / expected, 0.0, 0.0)
    calibration = ObservedCalibration(late, expected, ratio, None, None, [])
    return [
        *rules.check_drift(limits, features, score),
        *rules.check_levels(limits, new),
        *rules.check_performance(estimated, realised, published),
        *rules.check_calibration(limits, calibration),
    ]


def _drift(drawn: Drawn, columns: list[Codes], limits: Rules) -> list[Psi]:
    """Return each column's PSI, or `_STILL` if it certainly fires no alert."""
    found = []
    m = drawn.bundle.profile.loans
    z = NormalDist().inv_cdf(1 - rules.SIGNIFICANCE / 2)
    for counts, shares in zip(columns, drawn.counting.shares, strict=True):
        n = int(counts.sum())
        held = (counts > 0) | (shares > 0)
        value, chance = _psi(counts[held], shares[held], n, m)
        # The standard error is at least as large as without drift.
        least = max(limits.psi_watch, z * np.sqrt(2 * chance * (1 / n + 1 / m)))
        moved = psi(counts, shares, m) if value - chance >= least else None
        found.append(moved or _STILL)
    return found


def _psi(counts: Codes, shares: Numbers, n: int, m: int) -> tuple[float, float]:
    """Return the PSI, and its expected value without drift."""
    there = shares * m
    half = np.where((counts == 0) | (there == 0), 0.5, 0.0)
    p, q = (counts + half) / n, (there + half) / m
    return float((p - q) @ np.log(p / q)), (len(p) - 1) * (1 / n + 1 / m)


def _expected_auc(scores: Scores) -> float:
    """The expected area under the ROC curve if the probabilities are correct."""
    expected = scores.loans * probabilities(scores.margins)
    return float(auc_of_counts(expected, scores.loans - expected))


def _auc(scores: Scores) -> float:
    """Return the realised AUC; 1 if all loans are late or all are on time."""
    assert scores.late is not None
    late, on_time = scores.late, scores.loans - scores.late
    if not late.sum() or not on_time.sum():
        return 1.0
    return float(late @ (np.cumsum(on_time) - on_time / 2)) / int(late.sum() * on_time.sum())


def count(drawn: Drawn, size: int, windows: int, seed: int) -> Counter[str]:
    """Count the windows in which each rule fires, by "rule level".

    "act" counts windows with any alert of that level, "any" windows with any alert.
    """
    found: Counter[str] = Counter()
    limits = Rules()
    for window in drawn.windows(size, windows, seed):
        spoken = speak(drawn, window, limits)
        found.update({f"{each.rule} {each.level}" for each in spoken})
        found["act"] += any(each.level == "act" for each in spoken)
        found["any"] += bool(spoken)
    return found


def calm_table(drawn: Drawn, sizes: Sequence[int], windows: int) -> Table:
    """Table of false alarms in 1,000 windows, with the upper end of the exact 95 % interval."""
    table = Table(
        title=f"{windows:,} windows without drift of each size: alerts in 1,000",
        title_justify="left",
    )
    for column in ("loans", "act", "at most", "any", "rules that fired"):
        table.add_column(column, justify="left" if " that " in column else "right")
    for size in sizes:
        found = count(drawn, size, windows, 1)
        act, every = found.pop("act"), found.pop("any")
        table.add_row(
            f"{size:,}",
            f"{1_000 * act / windows:.2f}",
            f"{1_000 * Estimate.of_share(act, windows).high:.2f}",
            f"{1_000 * every / windows:.2f}",
            ", ".join(f"{rule} {times}" for rule, times in sorted(found.items())) or "none",
        )
    return table


def seen_table(books: Mapping[str, Drawn], sizes: Sequence[int], windows: int) -> Table:
    """Table of the share of each scenario's windows with an alert, and with one of level act."""
    table = Table(
        title=f"{windows:,} windows: with any alert (with an alert of level act)",
        title_justify="left",
    )
    for column in ("loans", *books):
        table.add_column(column, justify="right")
    for size in sizes:
        found = [count(drawn, size, windows, 1) for drawn in books.values()]
        cells = [
            f"{100 * each['any'] / windows:.0f} % ({100 * each['act'] / windows:.0f} %)"
            for each in found
        ]
        table.add_row(f"{size:,}", *cells)
    return table
