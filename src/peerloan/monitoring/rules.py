"""What figures are worth a word: the conventions of the field, as rules.

A rule speaks only where its figure lies beyond the limit and chance alone does not explain that:
a small window speaks less, and many features that are looked at together speak no more often.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from peerloan.monitoring.drift import Psi
from peerloan.monitoring.estimates import Estimate
from peerloan.monitoring.performance import Calibration as Calibrated
from peerloan.monitoring.performance import Estimated, Realised

Level = Literal["watch", "act"]
_EASE = 0.8


class Rules(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits. A PSI of 0.1 is a moderate and of 0.25 a large change by convention (N. Siddiqi
    2006, chapter 9).
    """

    psi_watch: Annotated[float, Meta(gt=0)] = 0.10
    psi_act: Annotated[float, Meta(gt=0)] = 0.25
    # Of a feature's loans.
    new_levels: Annotated[float, Meta(gt=0, lt=1)] = 0.01
    # Late loans, of those expected.
    ratio_low: Annotated[float, Meta(gt=0, lt=1)] = 0.80
    ratio_high: Annotated[float, Meta(gt=1)] = 1.25
    # Of the loans that windows before had on average, so many are gone.
    volume_drop: Annotated[float, Meta(gt=0, lt=1)] = 0.50

    def eased(self) -> Rules:
        """The limits within which a rule that speaks has to come to be silent again: a fifth nearer
        to calm, so that a figure about a limit does not begin and end again and again.
        """
        return Rules(
            psi_watch=self.psi_watch * _EASE,
            psi_act=self.psi_act * _EASE,
            new_levels=self.new_levels * _EASE,
            ratio_low=1 - (1 - self.ratio_low) * _EASE,
            ratio_high=1 + (self.ratio_high - 1) * _EASE,
            volume_drop=self.volume_drop * _EASE,
        )


class Spoken(NamedTuple):
    """A rule that spoke: its name, how loud, of what, the figure, and the limit that it passed."""

    rule: str
    level: Level
    about: str
    value: float
    limit: float


def of_drift(rules: Rules, features: Mapping[str, Psi], score: Psi | None) -> Iterator[Spoken]:
    """Features, and the score, that have moved."""
    for name, each in features.items():
        yield from _moved(rules, "feature-drift", name, each, len(features))
    if score is not None:
        yield from _moved(rules, "score-drift", "probability", score, 1)


def of_levels(rules: Rules, shares: Mapping[str, Estimate]) -> Iterator[Spoken]:
    """Features with more new levels than the limit, by the low end of their share's interval."""
    for name, share in shares.items():
        if share.low > rules.new_levels:
            yield Spoken("new-levels", "watch", name, share.value, rules.new_levels)


def of_performance(
    estimated: Estimated, realised: Realised | None, expected: tuple[float, float] | None
) -> Iterator[Spoken]:
    """AUCs below the interval that the version was published with."""
    if expected is None:
        return
    figures: Sequence[tuple[str, Level, Estimate | None]] = (
        ("estimated-auc", "watch", estimated.auc),
        ("realised-auc", "act", None if realised is None else realised.auc),
    )
    for rule, level, auc in figures:
        if auc is not None and auc.high < expected[0]:
            yield Spoken(rule, level, "auc", auc.value, expected[0])


def of_calibration(rules: Rules, calibration: Calibrated) -> Iterator[Spoken]:
    """More or fewer late loans than expected."""
    ratio = calibration.ratio
    if ratio.value < rules.ratio_low and ratio.high < 1:
        yield Spoken("calibration", "act", "late rate", ratio.value, rules.ratio_low)
    if ratio.value > rules.ratio_high and ratio.low > 1:
        yield Spoken("calibration", "act", "late rate", ratio.value, rules.ratio_high)


def _moved(rules: Rules, rule: str, about: str, psi: Psi, comparisons: int) -> Iterator[Spoken]:
    without_chance = psi.value - psi.by_chance
    if not psi.interval(comparisons)[0]:
        return
    for level, limit in (("act", rules.psi_act), ("watch", rules.psi_watch)):
        if without_chance >= limit:
            yield Spoken(rule, level, about, psi.value, limit)  # type: ignore[arg-type]
            return
