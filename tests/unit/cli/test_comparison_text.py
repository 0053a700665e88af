"""The exact text of a comparison."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peerloan.cli.comparison_text import comparison_lines
from peerloan.stats.bootstrap import ChallengerVerdict, FigureComparison
from peerloan.stats.estimate import Estimate
from peerloan.stats.measures import Rate
from peerloan.training.comparison import Comparison, VersionFigures

VERDICT = ChallengerVerdict(
    loans=1_234,
    late=123,
    samples=1_000,
    auc=FigureComparison(0.7, 0.71, Estimate(0.01, 0.002, 0.018)),
    brier=FigureComparison(0.08, 0.079, Estimate(-0.001, -0.002, 0.0)),
    log_loss=FigureComparison(0.3, 0.299, Estimate(-0.001, -0.003, 0.001)),
    auc_above=0.993,
)
COMPARISON = Comparison(
    VersionFigures("old", 0.7, 0.08, 0.9, -0.1, 0.1, 0.0625, 0.2, 0.5),
    VersionFigures("new", 0.71, 0.079, 1.0, 0.0, 0.11, 0.0625, 0.201, 0.55),
    VERDICT,
    decisions=((Rate.of(50, 900), Rate.of(3, 10)), (None, Rate.of(70, 324))),
    band_moves=((600, 20, 0, 0), (10, 200, 0, 0), (0, 0, 300, 4), (0, 0, 0, 100)),
)
TEXT = """\
1,234 loans, 123 late: 9.97 % (8.42–11.8)
A is old, B is new

                           old      new
AUC                     0.7000   0.7100
Brier score            0.08000  0.07900
calibration slope         0.90     1.00
calibration intercept    −0.10     0.00
expected late rate      10.0 %   11.0 %
observed / expected       1.00     0.91
threshold               6.25 %   6.25 %
flagged                 20.0 %   20.1 %
recall                  50.0 %   55.0 %

AUC of B minus A: 0.0100 (95 % interval 0.0020 to 0.0180)
log loss of B minus A: −0.0010 (95 % interval −0.0030 to 0.0010)
B ranks better in 99.30 % of 1,000 bootstrap samples
verdict: B is better

10 loans (0.81 %) are decided differently:
  flagged by neither: 900 loans, late 5.56 % (4.24–7.25)
  flagged by B only: 10 loans, late 30.0 % (10.8–60.3)
  flagged by A only: no loans
  flagged by both: 324 loans, late 21.6 % (17.5–26.4)

bands (rows A, columns B):
           low  medium  high  very high
low        600      20     0          0
medium      10     200     0          0
high         0       0   300          4
very high    0       0     0        100
"""


def test_every_line() -> None:
    assert "\n".join(comparison_lines(COMPARISON)) + "\n" == TEXT


@pytest.mark.parametrize(
    ("low", "high", "line"),
    [
        (0.002, 0.018, "verdict: B is better"),
        (-0.018, -0.002, "verdict: B is worse"),
        (-0.002, 0.018, "verdict: no detectable difference on these loans"),
    ],
)
def test_the_verdict_is_named(low: float, high: float, line: str) -> None:
    auc = FigureComparison(0.7, 0.7, Estimate(0.0, low, high))
    comparison = replace(COMPARISON, b_against_a=replace(VERDICT, auc=auc))
    assert line in comparison_lines(comparison)
