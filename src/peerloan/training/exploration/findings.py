"""Findings about a book in plain sentences, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from peerloan.formatting import (
    are,
    join_words,
    percent,
    plural,
    show_number,
    show_rate,
    signed,
)
from peerloan.stats.measures import Rate
from peerloan.training.exploration.measure import (
    Bin,
    BookStudy,
    FarValues,
    Feature,
    NumberFigures,
)

# Below this late rate, accuracy is not informative.
_MINORITY = 0.2
# With fewer loans of either outcome, no figure is reliable.
_FEW_OF_AN_OUTCOME = 20
# The late rate of a level with fewer late loans, both observed and expected, is not compared with
# the average (Cochran 1954 requires five expected counts for a valid test).
_LEAST_LATE = 5
# Least skewness (absolute) of a long tail.
_LONG_TAIL = 2
# A correlation with the label is low below this.
_LOW_CORRELATION = 0.2
# Least correlation or Cramér's V of two features with the same information.
_SAME_INFORMATION = 0.7
# Least share of the loans that have one of the five most frequent values.
_HEAPED_SHARE = 0.1
# Least share of the loans that have the highest value, if it is a cap.
_CAPPED_SHARE = 0.01
# A number with at most this many different values, each of many loans, is reported as discrete.
_MOST_STEPS = 100
_LOANS_A_STEP = 50
_MOST_FINDINGS_A_TOPIC = 12


@dataclass(frozen=True)
class Finding:
    """A sentence about the book, or about one feature.

    The sentence does not name `feature`: the reader sees the name before it. Names of features and
    commands in the sentence are between backticks.
    """

    topic: str
    text: str
    feature: str | None = None

    def __str__(self) -> str:
        return self.text if self.feature is None else f"{self.feature}: {self.text}"


def list_findings(study: BookStudy) -> list[Finding]:
    """List all findings about a book, grouped by topic."""
    findings = [*_about_label(study), *_about_doubts(study), *_about_rows(study)]
    findings += _about_empty(study)
    findings += [*_about_signal(study), *_about_pairs(study), *_about_skew(study)]
    varying = [feature for feature in study.features if feature.different > 1]
    varying.sort(key=lambda feature: -(feature.information or 0))
    for about in (_about_risk, _about_few_loans, _about_missing, _about_odd_values):
        of_topic = [finding for feature in varying for finding in about(feature, study)]
        findings += _shortened(of_topic)
    return findings


def _shortened(findings: list[Finding]) -> list[Finding]:
    """Limit the findings of a topic, for a table with very many columns."""
    if len(findings) <= _MOST_FINDINGS_A_TOPIC:
        return findings
    first, rest = findings[: _MOST_FINDINGS_A_TOPIC - 1], findings[_MOST_FINDINGS_A_TOPIC - 1 :]
    names = list(dict.fromkeys(f"`{finding.feature}`" for finding in rest))
    text = f"And {len(rest)} more like these: {join_words(names)}."
    return [*first, Finding(findings[0].topic, text)]


def _about_label(study: BookStudy) -> Iterator[Finding]:
    overall = study.overall
    on_time = overall.loans - overall.late
    of_all = f"{overall.late:,} of {plural(overall.loans, 'loan')} {are(overall.loans)} late"
    text = f"{of_all}: {show_rate(overall)}."
    if min(overall.late, on_time) < _FEW_OF_AN_OUTCOME:
        kind = "late" if overall.late <= on_time else "on time"
        yield Finding(
            "label",
            f"{text} Only so few are {kind}: most figures below are unreliable.",
        )
    elif overall.rate < _MINORITY:
        yield Finding(
            "label",
            f"{text} A model that predicts late for no loan would be right for "
            f"{percent(1 - overall.rate)}, so accuracy would mislead: use AUC, recall, precision "
            "and calibration.",
        )
    else:
        yield Finding("label", text)


def _about_rows(study: BookStudy) -> Iterator[Finding]:
    if study.excluded:
        faults = [
            f"`{fault.field}` ({fault.count:,}, expected {fault.expected})"
            for fault in study.faults
        ]
        rows = study.excluded + study.without_outcome + study.overall.loans
        yield Finding(
            "rows",
            f"{study.excluded:,} of {rows:,} rows {are(study.excluded)} invalid by the definition, "
            f"and left out of all figures: {join_words(faults)}. `peerloan check` lists them.",
        )
    if study.without_outcome:
        rows_text = plural(study.without_outcome, "row")
        yield Finding("rows", f"{rows_text} without an outcome yet: left out of all figures.")
    for note in study.notes:
        yield Finding("rows", f"{note[0].upper()}{note[1:]}.")


def _about_doubts(study: BookStudy) -> Iterator[Finding]:
    for text in study.doubts:
        yield Finding("doubt", f"{text}.")


def _about_empty(study: BookStudy) -> Iterator[Finding]:
    for feature in study.features:
        if feature.different == 0:
            yield Finding(
                "empty", "no loan has a value, so it is of no use to a model.", feature.name
            )
        elif feature.different == 1:
            value = next(bin_.label for bin_ in feature.bins if bin_.kind != "missing")
            text = f"constant: every loan has the value {value}, so it is of no use to a model."
            if feature.missing:
                text = (
                    f"constant: {value} in {plural(feature.given, 'loan')}, missing in all others."
                )
            yield Finding("empty", text, feature.name)


def _about_signal(study: BookStudy) -> Iterator[Finding]:
    strength = {feature.name: describe_information(feature) for feature in study.features}
    informative = [
        f for f in study.features if f.information is not None and strength[f.name] != "chance"
    ]
    ranked = sorted(informative, key=lambda feature: -(feature.information or 0))
    if ranked:
        named = [f"`{f.name}` ({f.information:.2f}, {strength[f.name]})" for f in ranked]
        text = f"The features with most information about the label: {join_words(named)}."
        varying = [f for f in study.features if len(f.bins) > 1]
        if by_chance := [f"`{f.name}`" for f in varying if strength[f.name] == "chance"]:
            text += f" No more information than by chance: {join_words(by_chance)}."
        yield Finding("signal", text)
        if strong := [f"`{f.name}`" for f in ranked if strength[f.name] == "very strong"]:
            yield Finding(
                "signal",
                f"Make sure that {join_words(strong)} {are(len(strong))} known before the "
                "decision: an information value above 0.5 is rare for a feature that is.",
            )
    elif study.overall.late and study.overall.late < study.overall.loans:
        yield Finding("signal", "No feature has more information about the label than by chance.")
    correlated = [f for f in study.features if f.correlation is not None]
    if not correlated:
        return
    best = max(correlated, key=lambda feature: abs(feature.correlation or 0))
    if abs(best.correlation or 0) < _LOW_CORRELATION:
        yield Finding(
            "signal",
            "Every correlation with the label is low. The highest (by rank) is "
            f"{signed(best.correlation)}, that of `{best.name}`; so no single column separates "
            "late loans from the others, and the predictions of a model will be uncertain.",
        )


def _about_pairs(study: BookStudy) -> Iterator[Finding]:
    pairs: dict[frozenset[str], tuple[float, str]] = {}
    for matrix, named in ((study.spearman, "rank correlation"), (study.cramer, "Cramér's V")):
        for row, values in zip(matrix.rows, matrix.values, strict=True):
            for column, value in zip(matrix.columns, values, strict=True):
                if row != column and value is not None and abs(value) >= _SAME_INFORMATION:
                    text = f"`{row}` and `{column}` ({named} {signed(value)})"
                    pairs.setdefault(frozenset((row, column)), (abs(value), text))
    if pairs:
        strongest = sorted(pairs.values(), key=lambda pair: -pair[0])
        yield Finding(
            "overlap",
            f"Pairs with nearly the same information: {join_words([text for _, text in strongest])}"
            ". The effects of such a pair can't be separated, and reasons may name either feature.",
        )


def _about_skew(study: BookStudy) -> Iterator[Finding]:
    skewed = [
        (feature.numeric.skewness, feature, feature.numeric)
        for feature in study.features
        if feature.numeric is not None
        and feature.numeric.skewness is not None
        and abs(feature.numeric.skewness) >= _LONG_TAIL
    ]
    skewed.sort(key=lambda row: -abs(row[0]))
    named = []
    for skewness, feature, numeric in skewed:
        end, extreme = ("highest", numeric.highest) if skewness > 0 else ("lowest", numeric.lowest)
        median, tail = _show_numbers(feature, numeric.median, extreme)
        figures = f"skewness {signed(skewness, 1)}, median {median}, {end} {tail}"
        named.append(f"`{feature.name}` ({figures})")
    if named:
        yield Finding(
            "skewed",
            f"Long tails: {join_words(named)}. Trees and bins are not affected; a linear model "
            "needs logarithms, ranks or robust scaling.",
        )


def _about_risk(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    """Report the levels with clearly more or fewer late loans than the average.

    Of a number only the bins with the highest and the lowest late rate are reported.
    """
    average = study.overall.rate
    if describe_information(feature) in ("chance", "unknown"):
        return
    bins = [bin_ for bin_ in feature.bins if bin_.kind != "missing"]
    bins.sort(key=lambda bin_: -bin_.rate.rate)
    high = [bin_ for bin_ in bins if is_high(bin_, average)]
    low = [bin_ for bin_ in reversed(bins) if is_low(bin_, average)]
    if feature.numeric is not None:
        high, low = high[:1], low[:1]
    parts = [
        f"{where} the average: {join_words([_bin_rate(feature, bin_) for bin_ in side], '; ')}."
        for where, side in (("clearly above", high), ("clearly below", low))
        if side
    ]
    if parts:
        yield Finding("risk", " ".join(parts).replace(". clearly", ". Clearly"), feature.name)


def _bin_rate(feature: Feature, bin_: Bin) -> str:
    rate = show_rate(bin_.rate)
    return f"{bin_.label} {rate}" if feature.numeric is None else f"{rate} for {bin_.label}"


def _about_few_loans(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    few = [
        bin_
        for bin_ in feature.bins
        if bin_.kind == "level" and is_too_few(bin_, study.overall.rate)
    ]
    if few:
        named = [
            f"{bin_.label} ({plural(bin_.rate.loans, 'loan')}, {bin_.rate.late:,} late)"
            for bin_ in few
        ]
        yield Finding(
            "too few", f"too few loans to judge the late rate of {join_words(named)}.", feature.name
        )


def _about_missing(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    if not feature.missing or not feature.given:
        return
    missing = next(bin_ for bin_ in feature.bins if bin_.kind == "missing")
    others = Rate.of(study.overall.late - missing.rate.late, feature.given)
    text = f"missing in {percent(missing.share)} of the loans ({feature.missing:,}); of those "
    text += f"{show_rate(missing.rate)} are late, of the others {percent(others.rate)}"
    if is_too_few(missing, study.overall.rate):
        text += ": too few to judge whether a missing value is information."
    elif missing.rate.low > others.rate:
        text += ": clearly more, so a missing value is information."
    elif missing.rate.high < others.rate:
        text += ": clearly fewer, so a missing value is information."
    else:
        text += ": no clear difference."
    yield Finding("missing", text, feature.name)


def _about_odd_values(feature: Feature, _study: BookStudy) -> Iterator[Finding]:
    if feature.numeric is None:
        return
    for check in _ODD_VALUE_CHECKS:
        if text := check(feature, feature.numeric):
            yield Finding("odd values", text, feature.name)


def _outside_training_range(_feature: Feature, numeric: NumberFigures) -> str:
    if not numeric.outside:
        return ""
    return (
        f"{plural(numeric.outside, 'loan')} {are(numeric.outside)} outside the training range in "
        "the definition (`seen`)."
    )


def _far_values(feature: Feature, numeric: NumberFigures) -> str:
    parts = []
    for tail, limit, beyond in (
        (numeric.high, "at most", "above"),
        (numeric.low, "at least", "below"),
    ):
        if tail is not None:
            parts.append(_describe_tail(feature, tail, limit, beyond))
    return " ".join(parts)


def _describe_tail(feature: Feature, tail: FarValues, limit: str, beyond: str) -> str:
    usual, bound, extreme = _show_numbers(feature, tail.usual, tail.bound, tail.extreme)
    end = "highest" if beyond == "above" else "lowest"
    return (
        f"99 % of the loans have {limit} {usual}, but {tail.loans:,} {are(tail.loans)} {beyond} "
        f"{bound}; the {end} is {extreme}."
    )


def _many_zeros(feature: Feature, numeric: NumberFigures) -> str:
    if not numeric.zero_spike:
        return ""
    return (
        f"exactly 0 in {plural(numeric.zeros, 'loan')} ({percent(numeric.zeros / feature.given)}), "
        "at least ten times as many as any value near it: is it a real 0, or does it mean unknown?"
    )


def _above_one(feature: Feature, numeric: NumberFigures) -> str:
    if not feature.percent or not numeric.above_one:
        return ""
    (highest,) = _show_numbers(feature, numeric.highest)
    count = numeric.above_one
    return f"{plural(count, 'loan')} {are(count)} above 100 %; the highest is {highest}."


def _capped(feature: Feature, numeric: NumberFigures) -> str:
    share = numeric.at_highest / feature.given
    if feature.different <= _MOST_STEPS or share < _CAPPED_SHARE or numeric.highest_is_code:
        return ""
    (highest,) = _show_numbers(feature, numeric.highest)
    return f"{percent(share)} of the loans have the highest value, {highest}: it seems to be a cap."


def _heaped(feature: Feature, numeric: NumberFigures) -> str:
    if feature.different <= _MOST_STEPS or numeric.common < _HEAPED_SHARE:
        return ""
    return (
        f"heaped: {percent(numeric.common)} of the loans have one of the five most frequent values "
        f"(of {feature.different:,} different ones)."
    )


def _discrete(feature: Feature, _numeric: NumberFigures) -> str:
    different = feature.different
    if feature.kind == "whole" or not 2 < different <= _MOST_STEPS:
        return ""
    if feature.given < different * _LOANS_A_STEP:
        return ""
    return f"discrete: only {different} different values; a later book may contain others."


_ODD_VALUE_CHECKS: tuple[Callable[[Feature, NumberFigures], str], ...] = (
    _outside_training_range,
    _far_values,
    _many_zeros,
    _above_one,
    _capped,
    _heaped,
    _discrete,
)


def is_too_few(bin_: Bin, average: float) -> bool:
    """Whether a bin has too few late loans, observed and expected, to compare its rate."""
    return bin_.rate.late < _LEAST_LATE and bin_.rate.loans * average < _LEAST_LATE


def is_high(bin_: Bin, average: float) -> bool:
    """Whether a bin's late rate is clearly above the book's: its interval lies above."""
    return bin_.rate.low > average and not is_too_few(bin_, average)


def is_low(bin_: Bin, average: float) -> bool:
    """Whether a bin's late rate is clearly below the book's: its interval lies below."""
    return bin_.rate.high < average and not is_too_few(bin_, average)


def describe_information(feature: Feature) -> str:
    """Describe a feature's information value in one or two words (Siddiqi 2006).

    Siddiqi has four grades and a warning above 0.5, which is "very strong" here. The description is
    "chance" if chance explains the value, and "unknown" if there is none.
    """
    if feature.information is None or feature.by_chance is None:
        return "unknown"
    if feature.information <= feature.by_chance:
        return "chance"
    for bound, words in ((0.02, "hardly any"), (0.1, "weak"), (0.3, "medium"), (0.5, "strong")):
        if feature.information < bound:
            return words
    return "very strong"


def _show_numbers(feature: Feature, *values: float) -> list[str]:
    return [show_number(value, feature.percent) for value in values]
