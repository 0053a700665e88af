"""Findings about a book in plain sentences, the most important first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from peerloan.formatting import (
    are,
    join_words,
    percent,
    plural,
    show_loans,
    show_number,
    show_rate,
    signed,
)
from peerloan.stats.measures import Rate
from peerloan.training.exploration.measure import Bin, BookStudy, Far, Feature, Numeric

# Below this late rate, accuracy is not informative.
_MINORITY = 0.2
# With fewer loans of either class, no figure is reliable.
_FEW = 20
# A level with fewer late loans, and fewer expected, is not compared (Cochran 1954 requires five
# expected counts for a valid test).
_LEAST_LATE = 5
_SKEWED = 2
_WEAK = 0.2
_PAIR = 0.7
_COMMON = 0.1
_CAP = 0.01
# A number with fewer different values, each of many loans, is reported as discrete.
_STEPS = 100
_LOANS_A_STEP = 50
# Most findings of one topic.
_MOST = 12


@dataclass(frozen=True)
class Finding:
    """A sentence about the book, or about one feature, which it then doesn't name.

    Names of features and commands are between backticks.
    """

    topic: str
    text: str
    feature: str | None = None

    def __str__(self) -> str:
        return self.text if self.feature is None else f"{self.feature}: {self.text}"


def find(study: BookStudy) -> list[Finding]:
    """List all findings about a book."""
    found = [*_about_label(study), *_about_doubts(study), *_about_rows(study)]
    found += _about_empty(study)
    found += [*_about_signal(study), *_about_pairs(study), *_about_skew(study)]
    features = sorted(study.features, key=lambda feature: -(feature.information or 0))
    for about in (_risk, _too_few, _missing, _odd):
        each = [[*about(feature, study)] for feature in features if feature.different > 1]
        found += _shortened([finding for findings in each for finding in findings])
    return found


def _shortened(found: list[Finding]) -> list[Finding]:
    """Limit the findings of a topic, for a table with very many columns."""
    if len(found) <= _MOST:
        return found
    names = list(dict.fromkeys(f"`{each.feature}`" for each in found[_MOST - 1 :]))
    text = f"And {len(found) - _MOST + 1} more like these: {join_words(names)}."
    return [*found[: _MOST - 1], Finding(found[0].topic, text)]


def _about_label(study: BookStudy) -> Iterator[Finding]:
    overall = study.overall
    on_time = overall.loans - overall.late
    of_all = f"{overall.late:,} of {show_loans(overall.loans)} {are(overall.loans)} late"
    text = f"{of_all}: {show_rate(overall)}."
    if min(overall.late, on_time) < _FEW:
        kind = "late" if overall.late <= on_time else "on time"
        yield Finding(
            "label",
            f"{text} With so few that are {kind} hardly a figure below holds.",
        )
    elif overall.rate < _MINORITY:
        yield Finding(
            "label",
            f"{text} A model that never says late would be right for {percent(1 - overall.rate)}, "
            "so accuracy would mislead: judge by AUC, recall, precision and calibration.",
        )
    else:
        yield Finding("label", text)


def _about_rows(study: BookStudy) -> Iterator[Finding]:
    if study.excluded:
        faults = [
            f"`{each.field}` ({each.count:,}, expected {each.expected})" for each in study.faults
        ]
        rows = study.excluded + study.without_outcome + study.overall.loans
        yield Finding(
            "rows",
            f"Of {rows:,} rows {study.excluded:,} {are(study.excluded)} not as the definition "
            f"says, and left out of every figure: {join_words(faults)}. "
            "`peerloan check` names each.",
        )
    if study.without_outcome:
        unknown = plural(study.without_outcome, "row")
        yield Finding("rows", f"No outcome yet in {unknown}: left out of every figure.")
    for note in study.notes:
        yield Finding("rows", f"{note[0].upper()}{note[1:]}.")


def _about_doubts(study: BookStudy) -> Iterator[Finding]:
    for text in study.doubts:
        yield Finding("doubt", f"{text}.")


def _about_empty(study: BookStudy) -> Iterator[Finding]:
    for feature in study.features:
        if feature.different == 0:
            yield Finding("empty", "no loan has a value; it can say nothing.", feature.name)
        elif feature.different == 1:
            held = next(each.label for each in feature.bins if each.kind != "missing")
            text = f"constant: every loan has the value {held}; it can say nothing."
            if feature.missing:
                text = f"constant: {held} in {show_loans(feature.given)}, missing in all others."
            yield Finding("empty", text, feature.name)


def _about_signal(study: BookStudy) -> Iterator[Finding]:
    telling = [f for f in study.features if f.information is not None and reading(f) != "chance"]
    ranked = sorted(telling, key=lambda feature: -(feature.information or 0))
    if ranked:
        named = [f"`{f.name}` ({f.information:.2f}, {reading(f)})" for f in ranked]
        text = f"By information value these features say most: {join_words(named)}."
        varying = [f for f in study.features if len(f.bins) > 1]
        if nothing := [f"`{f.name}`" for f in varying if reading(f) == "chance"]:
            text += f" No more than chance would: {join_words(nothing)}."
        yield Finding("signal", text)
        if strong := [f"`{f.name}`" for f in ranked if reading(f) == "very strong"]:
            yield Finding(
                "signal",
                f"Make sure that {join_words(strong)} {are(len(strong))} known before the "
                "decision: an information value above 0.5 is rare for what is.",
            )
    elif study.overall.late and study.overall.late < study.overall.loans:
        yield Finding("signal", "No feature says more about the label than chance would.")
    correlated = [f for f in study.features if f.correlation is not None]
    if not correlated:
        return
    best = max(correlated, key=lambda feature: abs(feature.correlation or 0))
    if abs(best.correlation or 0) < _WEAK:
        yield Finding(
            "signal",
            "Every correlation with the label is low. The highest (by rank) is "
            f"{signed(best.correlation)}, that of `{best.name}`; so no single column tells late "
            "loans from the others, and no model of these columns will be sure.",
        )


def _about_pairs(study: BookStudy) -> Iterator[Finding]:
    pairs: dict[frozenset[str], tuple[float, str]] = {}
    for matrix, named in ((study.spearman, "rank correlation"), (study.cramer, "Cramér's V")):
        for row, values in zip(matrix.rows, matrix.values, strict=True):
            for column, value in zip(matrix.columns, values, strict=True):
                if row != column and value is not None and abs(value) >= _PAIR:
                    text = f"`{row}` and `{column}` ({named} {signed(value)})"
                    pairs.setdefault(frozenset((row, column)), (abs(value), text))
    if pairs:
        strongest = sorted(pairs.values(), key=lambda pair: -pair[0])
        yield Finding(
            "overlap",
            f"Nearly the same is said by {join_words([text for _, text in strongest])}. The "
            "effects of such a pair can't be told apart, and reasons may name either.",
        )


def _about_skew(study: BookStudy) -> Iterator[Finding]:
    skewed = [
        (feature.numeric.skewness, feature, feature.numeric)
        for feature in study.features
        if feature.numeric is not None
        and feature.numeric.skewness is not None
        and abs(feature.numeric.skewness) >= _SKEWED
    ]
    skewed.sort(key=lambda each: -abs(each[0]))
    named = []
    for skewness, feature, numeric in skewed:
        end, extreme = ("highest", numeric.highest) if skewness > 0 else ("lowest", numeric.lowest)
        median, far = _shown(feature, numeric.median, extreme)
        figures = f"skewness {signed(skewness, 1)}, median {median}, {end} {far}"
        named.append(f"`{feature.name}` ({figures})")
    if named:
        yield Finding(
            "skewed",
            f"Long tails: {join_words(named)}. Trees and bins don't mind; a linear model needs "
            "logarithms, ranks or robust scaling.",
        )


def _risk(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    """Find levels with clearly more or fewer late loans; of a number, the most and least risky."""
    average = study.overall.rate
    if reading(feature) in ("chance", "unknown"):
        return
    ranked = sorted(
        (each for each in feature.bins if each.kind != "missing"), key=lambda each: -each.rate.rate
    )
    high = [each for each in ranked if is_high(each, average)]
    low = [each for each in reversed(ranked) if is_low(each, average)]
    if feature.numeric is not None:
        high, low = high[:1], low[:1]
    parts = [
        f"{where} the average: {join_words([_of(feature, each) for each in bins], '; ')}."
        for where, bins in (("clearly above", high), ("clearly below", low))
        if bins
    ]
    if parts:
        yield Finding("risk", " ".join(parts).replace(". clearly", ". Clearly"), feature.name)


def _of(feature: Feature, each: Bin) -> str:
    rate = show_rate(each.rate)
    return f"{each.label} {rate}" if feature.numeric is None else f"{rate} for {each.label}"


def _too_few(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    few = [
        each
        for each in feature.bins
        if each.kind == "level" and is_too_few(each, study.overall.rate)
    ]
    if few:
        named = [
            f"{each.label} ({show_loans(each.rate.loans)}, {each.rate.late:,} late)" for each in few
        ]
        yield Finding(
            "too few", f"too few loans to say anything about {join_words(named)}.", feature.name
        )


def _missing(feature: Feature, study: BookStudy) -> Iterator[Finding]:
    if not feature.missing or not feature.given:
        return
    held = next(each for each in feature.bins if each.kind == "missing")
    others = Rate.of(study.overall.late - held.rate.late, feature.given)
    text = f"missing in {percent(held.share)} of the loans ({feature.missing:,}); of those "
    text += f"{show_rate(held.rate)} are late, of the others {percent(others.rate)}"
    if is_too_few(held, study.overall.rate):
        text += ": too few to say whether it matters."
    elif held.rate.low > others.rate:
        text += ": clearly more, so a missing value is information."
    elif held.rate.high < others.rate:
        text += ": clearly fewer, so a missing value is information."
    else:
        text += ": no clear difference."
    yield Finding("missing", text, feature.name)


def _odd(feature: Feature, _study: BookStudy) -> Iterator[Finding]:
    if feature.numeric is None:
        return
    for check in _ODD:
        if text := check(feature, feature.numeric):
            yield Finding("odd values", text, feature.name)


def _odd_outside(_feature: Feature, numeric: Numeric) -> str:
    if not numeric.outside:
        return ""
    return (
        f"{show_loans(numeric.outside)} {are(numeric.outside)} outside the range that the "
        "definition gives as seen in training."
    )


def _odd_far(feature: Feature, numeric: Numeric) -> str:
    parts = []
    for far, most, beyond in (
        (numeric.high, "at most", "above"),
        (numeric.low, "at least", "below"),
    ):
        if far is not None:
            parts.append(_far(feature, far, most, beyond))
    return " ".join(parts)


def _far(feature: Feature, far: Far, most: str, beyond: str) -> str:
    usual, bound, extreme = _shown(feature, far.usual, far.bound, far.extreme)
    end = "highest" if beyond == "above" else "lowest"
    return (
        f"99 % of the loans have {most} {usual}, but {far.loans:,} {are(far.loans)} {beyond} "
        f"{bound}; the {end} is {extreme}."
    )


def _odd_zeros(feature: Feature, numeric: Numeric) -> str:
    if not numeric.zero_spike:
        return ""
    return (
        f"exactly 0 in {show_loans(numeric.zeros)} ({percent(numeric.zeros / feature.given)}), at "
        "least ten times as many as any value near it: a real 0, or one that stands for unknown?"
    )


def _odd_fraction(feature: Feature, numeric: Numeric) -> str:
    if not feature.percent or not numeric.above_one:
        return ""
    (highest,) = _shown(feature, numeric.highest)
    count = numeric.above_one
    return f"{show_loans(count)} {are(count)} above 100 %; the highest is {highest}."


def _odd_cap(feature: Feature, numeric: Numeric) -> str:
    share = numeric.at_highest / feature.given
    if feature.different <= _STEPS or share < _CAP:
        return ""
    (highest,) = _shown(feature, numeric.highest)
    return f"{percent(share)} of the loans have the highest value, {highest}: a cap."


def _odd_heaps(feature: Feature, numeric: Numeric) -> str:
    if feature.different <= _STEPS or numeric.common < _COMMON:
        return ""
    return (
        f"heaped: {percent(numeric.common)} of the loans have one of five values (of "
        f"{feature.different:,} different ones)."
    )


def _odd_steps(feature: Feature, _numeric: Numeric) -> str:
    different = feature.different
    if feature.kind == "whole" or not 2 < different <= _STEPS:
        return ""
    if feature.given < different * _LOANS_A_STEP:
        return ""
    return f"moves in steps: only {different} different values; a later book may hold others."


_ODD: tuple[Callable[[Feature, Numeric], str], ...] = (
    _odd_outside,
    _odd_far,
    _odd_zeros,
    _odd_fraction,
    _odd_cap,
    _odd_heaps,
    _odd_steps,
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


def reading(feature: Feature) -> str:
    """Interpret an information value (Siddiqi 2006), or state that chance explains it.

    Siddiqi has four readings and a warning above 0.5, here "very strong".
    """
    if feature.information is None or feature.by_chance is None:
        return "unknown"
    if feature.information <= feature.by_chance:
        return "chance"
    for bound, words in ((0.02, "hardly any"), (0.1, "weak"), (0.3, "medium"), (0.5, "strong")):
        if feature.information < bound:
            return words
    return "very strong"


def _shown(feature: Feature, *values: float) -> list[str]:
    return [show_number(value, feature.percent) for value in values]
