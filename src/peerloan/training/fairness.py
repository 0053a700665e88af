"""Fairness: compare decisions, and their errors, between the groups of a column.

The decisions are on loans whose outcome is known. To be flagged as late is the unfavourable
decision, so the four-fifths rule compares the shares of loans that are *not* flagged.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.formatting import format_exact, join_words, percent
from peerloan.loan import TextColumn
from peerloan.loan.text import parse_number
from peerloan.reports.report_json import Fairness, GroupFairness, Share
from peerloan.stats.arrays import Numbers
from peerloan.stats.intervals import Z95, wilson

# With fewer loans, a group's figures depend more on chance than on the model.
LEAST_LOANS = 50
LEAST_LATE = 10
MOST_GROUPS = 20
# A column of numbers is cut into this many ranges, with about the same number of loans each.
_RANGES = 5
FOUR_FIFTHS = 0.8

Kind = Literal["level", "others", "missing"]


def check_fairness(
    column: str,
    values: Sequence[str | None],
    flagged: npt.NDArray[np.bool_],
    late: Numbers,
) -> Fairness:
    """Compare groups of loans by their decisions `flagged` (n,) and outcomes `late` (n,).

    `values` (n,) is the group of each loan, None if it is missing.

    The four-fifths rule is that of the Uniform Guidelines on Employee Selection Procedures (1978),
    29 CFR § 1607.4 D: a group whose favourable rate is below 4/5 of the highest group's is a sign
    of adverse impact. It was written for hiring and is used in lending by analogy. True- and
    false-positive rates are the "equalized odds" of Hardt, Price and Srebro (2016).

    Missing values are a separate group, and numbers are cut into ranges. If there are more than 20
    groups, the smaller ones are merged into one, which is never the group of reference.
    """
    groups = [
        _group_figures(name, kind, flagged[rows], late[rows])
        for name, kind, rows in _members(TextColumn.of(_ranged(values)))
    ]
    enough = [group for group in groups if not group.too_few and group.kind != "others"]
    if len(enough) < 2:
        sentence = (
            f"{column}: fewer than two groups have {LEAST_LOANS} loans and {LEAST_LATE} late ones, "
            "so there is nothing to compare."
        )
        return Fairness(column, tuple(groups), None, (sentence,))
    # The first of groups with equal rates is the largest one, whose rate is the most certain.
    favoured = min(enough, key=lambda group: group.flagged.share)
    if favoured.flagged.share == 1:
        sentence = f"{column}: every loan of the groups that can be compared is flagged."
        return Fairness(column, tuple(groups), None, (sentence,))
    groups = [group if group.too_few else _with_ratio(group, favoured) for group in groups]
    return Fairness(
        column, tuple(groups), favoured.name, tuple(_describe(column, groups, favoured))
    )


def _ranged(values: Sequence[str | None]) -> Sequence[str | None]:
    """Replace numbers by ranges, if there are more different ones than groups are allowed."""
    different = list(dict.fromkeys(value for value in values if value is not None))
    if len(different) <= MOST_GROUPS:
        return values
    try:
        numbers = {value: parse_number(value) for value in different}
    except ValueError:
        return values
    loan_numbers = np.array(
        [np.nan if value is None else numbers[value] for value in values], dtype=np.float64
    )
    present = loan_numbers[~np.isnan(loan_numbers)]
    if not len(present):
        return values
    ends = np.unique(np.quantile(present, np.arange(1, _RANGES) / _RANGES, method="lower"))
    end_texts = [format_exact(end) for end in ends.tolist()]
    names = [
        f"up to {end_texts[0]}",
        *(f"above {low} to {high}" for low, high in itertools.pairwise(end_texts)),
        f"above {end_texts[-1]}",
    ]
    places = np.searchsorted(ends, loan_numbers, side="left").tolist()
    return [
        None if missing else names[place]
        for place, missing in zip(places, np.isnan(loan_numbers).tolist(), strict=True)
    ]


def _members(column: TextColumn) -> list[tuple[str, Kind, npt.NDArray[np.bool_]]]:
    """Return name, kind and loans (n,) of each group: levels by size, others, missing."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    order = sorted(range(len(counts)), key=lambda code: (-counts[code], column.levels[code]))
    largest = order[:MOST_GROUPS]
    members: list[tuple[str, Kind, npt.NDArray[np.bool_]]] = [
        (column.levels[code], "level", column.codes == code) for code in largest
    ]
    if rest := order[MOST_GROUPS:]:
        members.append((f"{len(rest):,} other groups", "others", np.isin(column.codes, rest)))
    missing = column.codes < 0
    if missing.any():
        members.append(("not given", "missing", missing))
    return members


def _group_figures(
    name: str, kind: Kind, flagged: npt.NDArray[np.bool_], late: Numbers
) -> GroupFairness:
    loans, n_late = len(late), int((late == 1).sum())
    share = _share(int(flagged.sum()), loans)
    assert share is not None, name  # noqa: S101  a group has at least one loan
    return GroupFairness(
        name,
        kind,
        loans,
        n_late,
        share,
        _share(int(flagged[late == 1].sum()), n_late),
        _share(int(flagged[late != 1].sum()), loans - n_late),
        loans < LEAST_LOANS or n_late < LEAST_LATE,
    )


def _share(count: int, total: int) -> Share | None:
    """Return a share with its interval, or None if there are no loans."""
    return Share(count, total, count / total, *wilson(count, total)) if total else None


def _with_ratio(group: GroupFairness, favoured: GroupFairness) -> GroupFairness:
    """Add the four-fifths ratio with its interval.

    The interval is that of a ratio of two shares, by the delta method on its logarithm (D. Katz et
    al. 1978, Biometrics 34).
    """
    rate, best = 1 - group.flagged.share, 1 - favoured.flagged.share
    ratio = rate / best
    if group is favoured or not rate:
        return msgspec.structs.replace(group, ratio=ratio)
    error = math.sqrt((1 - rate) / (rate * group.loans) + (1 - best) / (best * favoured.loans))
    low, high = (ratio * math.exp(sign * Z95 * error) for sign in (-1, 1))
    return msgspec.structs.replace(group, ratio=ratio, low=low, high=high)


def _describe(column: str, groups: Sequence[GroupFairness], favoured: GroupFairness) -> list[str]:
    """Describe the comparison: four-fifths rule, flagged rates, errors, and small groups."""
    compared = [group for group in groups if not group.too_few]
    below = [group for group in compared if group.ratio is not None and group.ratio < FOUR_FIFTHS]
    certain = [group for group in below if group.high is None or group.high < FOUR_FIFTHS]
    below_rate = f"below four fifths of the rate at which loans of {favoured.name} are not flagged"
    sentences = []
    if certain:
        sentences.append(
            f"{column}: {below_rate}: {_with_ratios(certain)}. This needs a justification, and a "
            "search for a less unequal alternative."
        )
    if uncertain := [group for group in below if group not in certain]:
        sentences.append(
            f"{column}: {below_rate}, but by no more than chance explains: "
            f"{_with_ratios(uncertain)}."
        )
    if not below:
        lowest = min(group.ratio for group in compared if group.ratio is not None)
        sentences.append(
            f"{column}: no group falls below four fifths of the rate at which loans of "
            f"{favoured.name} are not flagged; the lowest ratio is {lowest:.2f}."
        )
    most = max(compared, key=lambda group: group.flagged.share)
    if most.flagged.low > favoured.flagged.high:
        sentences.append(
            f"{most.name} is flagged most often, {percent(most.flagged.share)} of its loans "
            f"against {percent(favoured.flagged.share)} of {favoured.name}; "
            f"{percent(most.late / most.loans)} and {percent(favoured.late / favoured.loans)} of "
            "them are late."
        )
    sentences.append(_errors(compared))
    if few := [group.name for group in groups if group.too_few]:
        sentences.append(
            f"Too few loans (under {LEAST_LOANS}) or late loans (under {LEAST_LATE}) to be "
            f"compared: {join_words(few)}."
        )
    return sentences


def _with_ratios(groups: Sequence[GroupFairness]) -> str:
    return join_words([f"{group.name} ({group.ratio:.2f})" for group in groups])


def _errors(groups: Sequence[GroupFairness]) -> str:
    """Describe whether a group's late or on-time loans are clearly flagged more than others."""
    differences = []
    for what, name in (("late loans", "true_positive"), ("loans on time", "false_positive")):
        rates = [(group.name, getattr(group, name)) for group in groups if getattr(group, name)]
        if not rates:
            continue
        low = min(rates, key=lambda rate: rate[1].high)
        high = max(rates, key=lambda rate: rate[1].low)
        if high[1].low > low[1].high:
            differences.append(
                f"of {what}, {percent(high[1].share)} in {high[0]} are flagged and "
                f"{percent(low[1].share)} in {low[0]}"
            )
    if not differences:
        return "The intervals of all groups' true- and false-positive rates overlap."
    return f"Errors differ, and their intervals do not overlap: {'; '.join(differences)}."
