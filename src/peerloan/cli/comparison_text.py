"""The text output of `peerloan models compare`."""

from __future__ import annotations

from collections.abc import Sequence

from peerloan.formatting import percent, plural, show_rate, signed
from peerloan.model import BANDS
from peerloan.stats.bootstrap import FigureComparison
from peerloan.stats.measures import Rate
from peerloan.training.comparison import Comparison, VersionFigures

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
_VERDICTS = {
    "better": "B is better",
    "worse": "B is worse",
    "no difference": "no detectable difference on these loans",
}
_DECISIONS = (
    (0, 0, "flagged by neither"),
    (0, 1, "flagged by B only"),
    (1, 0, "flagged by A only"),
    (1, 1, "flagged by both"),
)


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return a comparison as lines of text."""
    a, b, verdict = comparison.a, comparison.b, comparison.b_against_a
    observed = Rate.of(verdict.late, verdict.loans)
    cells = [_cells(figures, observed.rate) for figures in (a, b)]
    samples = plural(verdict.samples, "bootstrap sample")
    return [
        f"{plural(verdict.loans, 'loan')}, {verdict.late:,} late: {show_rate(observed)}",
        f"A is {a.version}, B is {b.version}",
        "",
        *_columns([("", a.version, b.version), *zip(_NAMES, *cells, strict=True)]),
        "",
        _difference_line("AUC", verdict.auc),
        _difference_line("log loss", verdict.log_loss),
        f"B ranks better in {percent(verdict.auc_above)} of {samples}",
        f"verdict: {_VERDICTS[verdict.verdict]}",
        "",
        *_decision_lines(comparison),
        "",
        "bands (rows A, columns B):",
        *_columns([("", *BANDS), *map(_band_cells, BANDS, comparison.band_moves)]),
    ]


def _cells(figures: VersionFigures, late_rate: float) -> tuple[str, ...]:
    return (
        f"{figures.auc:.4f}",
        f"{figures.brier:.5f}",
        signed(figures.slope),
        signed(figures.intercept),
        percent(figures.expected),
        f"{late_rate / figures.expected:.2f}",
        percent(figures.threshold),
        percent(figures.flagged),
        percent(figures.recall),
    )


def _difference_line(name: str, figure: FigureComparison) -> str:
    value, low, high = (signed(each, 4) for each in figure.difference)
    return f"{name} of B minus A: {value} (95 % interval {low} to {high})"


def _decision_lines(comparison: Comparison) -> list[str]:
    """Return how many loans are decided differently, and the late rate of each pair."""
    decided = comparison.decisions
    changed = sum(rate.loans for rate in (decided[0][1], decided[1][0]) if rate)
    share, verb = percent(changed / comparison.b_against_a.loans), "is" if changed == 1 else "are"
    lines = [f"{plural(changed, 'loan')} ({share}) {verb} decided differently:"]
    for by_a, by_b, name in _DECISIONS:
        rate = decided[by_a][by_b]
        shown = f"{plural(rate.loans, 'loan')}, late {show_rate(rate)}" if rate else "no loans"
        lines.append(f"  {name}: {shown}")
    return lines


def _band_cells(band: str, counts: Sequence[int]) -> tuple[str, ...]:
    return band, *(f"{count:,}" for count in counts)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of cells as text: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
