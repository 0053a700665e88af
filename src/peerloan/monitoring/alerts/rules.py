"""The rules that fire alerts.

A rule fires only if its figure is beyond the limit and chance alone does not explain that. So small
windows cause fewer alerts, and many features together do not cause more. With `is_active`, a rule
yields the alerts that persist if they are active already (hysteresis): then chance plays no part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from peerloan.monitoring.performance import ObservedCalibration
from peerloan.stats.estimate import Estimate
from peerloan.stats.psi import Psi

Level = Literal["watch", "act"]
VOLUME = "volume-drop"
# Significance level of a rule: the share of windows without drift in which it may fire. It is low,
# because the rules are evaluated again and again.
SIGNIFICANCE = 0.001
_HYSTERESIS = 0.8


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of the rules.

    By convention a PSI of 0.1 is a moderate change, and 0.25 a large one (N. Siddiqi 2006,
    chapter 9).
    """

    psi_watch: Annotated[float, Meta(gt=0)] = 0.10
    psi_act: Annotated[float, Meta(gt=0)] = 0.25
    # Share of loans with a level that is not in the reference.
    new_levels: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    # Number of late loans divided by the expected number.
    ratio_low: Annotated[float, Meta(gt=0, lt=1)] = 0.80
    ratio_high: Annotated[float, Meta(gt=1)] = 1.25
    # Drop of the number of loans, as a share of the average of the previous windows.
    volume_drop: Annotated[float, Meta(gt=0, lt=1)] = 0.50

    def with_hysteresis(self) -> Rules:
        """Return the limits at which an active alert ends: a fifth closer to no drift."""
        return Rules(
            psi_watch=self.psi_watch * _HYSTERESIS,
            psi_act=self.psi_act * _HYSTERESIS,
            new_levels=self.new_levels * _HYSTERESIS,
            ratio_low=1 - (1 - self.ratio_low) * _HYSTERESIS,
            ratio_high=1 + (self.ratio_high - 1) * _HYSTERESIS,
            volume_drop=self.volume_drop * _HYSTERESIS,
        )


class Alert(NamedTuple):
    """An alert: the rule's name, its level, its subject (such as a feature), its figure and limit.

    An alert that has ended has no figure and no limit.
    """

    rule: str
    level: Level
    about: str
    value: float | None
    limit: float | None


def check_drift(
    rules: Rules, features: Mapping[str, Psi], score: Psi, is_active: bool = False
) -> Iterator[Alert]:
    """Yield alerts of features, and of the probability, that have drifted.

    The significance level is Bonferroni-corrected (C. E. Bonferroni 1936), because many features
    are tested.
    """
    for name, psi in features.items():
        significance = 1 if is_active else SIGNIFICANCE / len(features)
        yield from _check_psi(rules, "feature-drift", name, psi, significance)
    yield from _check_psi(
        rules, "score-drift", "probability", score, 1 if is_active else SIGNIFICANCE
    )


def check_levels(
    rules: Rules, shares: Mapping[str, Estimate], is_active: bool = False
) -> Iterator[Alert]:
    """Yield alerts of features whose share of new levels is above the limit.

    The intervals of the shares must be for the level SIGNIFICANCE.
    """
    for name, share in shares.items():
        if (share.value if is_active else share.low) > rules.new_levels:
            yield Alert("new-levels", "watch", name, share.value, rules.new_levels)


def check_performance(
    estimated: Estimate | None,
    realised: Estimate | None,
    expected: tuple[float, float] | None,
    is_active: bool = False,
) -> Iterator[Alert]:
    """Yield alerts of AUCs below `expected`, the interval that the version was published with.

    The intervals of the AUCs must be for the level SIGNIFICANCE.
    """
    if expected is None:
        return
    figures: Sequence[tuple[str, Level, Estimate | None]] = (
        ("estimated-auc", "watch", estimated),
        ("realised-auc", "act", realised),
    )
    for rule, level, auc in figures:
        if auc is not None and (auc.value if is_active else auc.high) < expected[0]:
            yield Alert(rule, level, "auc", auc.value, expected[0])


def check_calibration(
    rules: Rules, calibration: ObservedCalibration, is_active: bool = False
) -> Iterator[Alert]:
    """Yield an alert if there are more or fewer late loans than expected."""
    ratio = calibration.ratio
    interval = Estimate.of_ratio(calibration.late, calibration.expected, SIGNIFICANCE)
    if ratio.value < rules.ratio_low and (is_active or interval.high < 1):
        yield Alert("calibration", "act", "late rate", ratio.value, rules.ratio_low)
    if ratio.value > rules.ratio_high and (is_active or interval.low > 1):
        yield Alert("calibration", "act", "late rate", ratio.value, rules.ratio_high)


def check_volume(
    rules: Rules, loans: int, before: Sequence[int], is_active: bool = False
) -> Iterator[Alert]:
    """Yield an alert if there are far fewer loans than in the average of the previous windows.

    `before` are the numbers of loans of these windows. The drop must be larger than chance explains
    (Poisson).
    """
    usual = sum(before) / len(before) if before else 0.0
    if not usual:
        return
    drop = 1 - loans / usual
    highest = loans + NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) * math.sqrt(loans + 1)
    if drop >= rules.volume_drop and (is_active or highest < usual):
        yield Alert(VOLUME, "watch", "loans", drop, rules.volume_drop)


def _check_psi(
    rules: Rules, rule: str, about: str, psi: Psi, significance: float
) -> Iterator[Alert]:
    bias_corrected = psi.value - psi.by_chance
    if significance < 1 and not psi.interval(significance)[0]:
        return
    for level, limit in (("act", rules.psi_act), ("watch", rules.psi_watch)):
        if bias_corrected >= limit:
            yield Alert(rule, level, about, psi.value, limit)  # type: ignore[arg-type]
            return
