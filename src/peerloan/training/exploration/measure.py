"""Measurements of a book as plain data, from which the findings and the page are made.

All of them are figures of many loans, except a number's lowest and highest value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peerloan.book import (
    Book,
    BookDoubts,
    BookError,
    DoubtCollector,
    check_columns,
    join_loans,
    read_loans,
)
from peerloan.book.quality.missing_codes import Extremes
from peerloan.loan import Definition, Field, Loans
from peerloan.stats import discrimination, measures
from peerloan.stats.arrays import Codes, Numbers
from peerloan.stats.measures import Rate
from peerloan.training.exploration.binning import Bins, Kind, bin_field, order_values
from peerloan.training.folds import first_folds

# Most columns of a histogram; more are too narrow to see.
_MOST_COLUMNS = 40
# Least skewness that gets a logarithmic axis.
_VERY_SKEWED = 3
# Number of the most frequent values that count as common.
_COMMON_VALUES = 5
# A value is far off beyond this many times the distance of the 99th (or 1st) percentile from the
# median.
_FAR_DISTANCES = 3
# Values on each side of 0 that its frequency is compared with.
_NEIGHBOURS = 10
# With more features a heat map is unreadable.
_MOST_PAIRED = 24

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Bin:
    """A bin of a feature's values: its loans and late loans."""

    label: str
    kind: Kind
    share: float
    rate: Rate


@dataclass(frozen=True)
class Histogram:
    """A histogram: the number of loans between each two edges, and which axes are logarithmic."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    log_x: bool
    log_y: bool


@dataclass(frozen=True)
class FarValues:
    """The loans whose values are far off at one end.

    `usual` is the 99th percentile (the 1st at the low end), and `extreme` the last value. `loans`
    counts the loans beyond `bound`.
    """

    usual: float
    bound: float
    extreme: float
    loans: int


@dataclass(frozen=True)
class NumberFigures:
    """Figures of a number, over the loans that have a value.

    `common` is the share of the loans that have one of the five most frequent values. `at_lowest`
    and `at_highest` count the loans with the lowest and the highest value, `zeros` those with 0.
    `highest_is_code` is true if the highest value seems to stand for a missing one (99999999).
    `zero_spike` is true if far more loans have 0 than any value near it. `outside` counts the
    values outside the training range in the definition (None if the definition has no range).
    """

    lowest: float
    median: float
    highest: float
    skewness: float | None
    histogram: Histogram | None
    common: float
    at_lowest: int
    at_highest: int
    highest_is_code: bool
    above_one: int
    zeros: int
    zero_spike: bool
    high: FarValues | None
    low: FarValues | None
    outside: int | None


@dataclass(frozen=True)
class Feature:
    """A feature, its bins, and its relation to the label.

    `given` and `missing` count the loans with and without a value, `different` the different
    values. `information` is the information value, and `by_chance` the largest one that chance
    explains. `auc` is above 0.5 if high values are risky (numbers, ordered). The levels of a
    category have no order: they are ranked by the late rates of other loans. `correlation` is
    Spearman's rank correlation with the label. `numeric` is None for a category, and if no loan
    has a value.
    """

    name: str
    label: str
    help: str
    unit: str
    kind: str
    percent: bool
    given: int
    missing: int
    different: int
    bins: tuple[Bin, ...]
    information: float | None
    by_chance: float | None
    auc: float | None
    correlation: float | None
    numeric: NumberFigures | None


@dataclass(frozen=True)
class Matrix:
    """A figure for each pair of row and column features; None if it can't be computed."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class RowFault:
    """The number of unexpected values of a field."""

    field: str
    expected: str
    count: int


@dataclass(frozen=True)
class BookStudy:
    """Measurements of a whole book.

    `excluded` counts the invalid rows, and `without_outcome` the rows without an outcome yet; no
    other figure includes them. `faults` counts the unexpected values by field. `spearman` pairs
    numbers and ordered categories, `cramer` pairs each category with every feature in bins. If
    there are many features, both contain only the most informative ones.
    """

    book: str
    model: str
    definition: str
    label: str
    overall: Rate
    excluded: int
    without_outcome: int
    faults: tuple[RowFault, ...]
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    rows_with_warnings: int
    features: tuple[Feature, ...]
    spearman: Matrix
    cramer: Matrix


def measure(
    book: Book,
    definition: Definition,
    progress: Progress = lambda _what, _done: None,
    source: str = "",
) -> BookStudy:
    """Measure a book with its labels; `source` describes where the definition comes from.

    Raises BookError if a needed column is missing, including the label's, or if no row is valid.
    """
    content = _read(book, definition, progress)
    overall = Rate.of(int(content.late.sum()), content.loans.size)
    features, binned = [], {}
    fold = first_folds(content.loans, content.late, discrimination.FOLDS)
    for done, field in enumerate(definition.fields):
        progress("measuring features", done / len(definition.fields))
        bins = binned[field.name] = bin_field(field, content.loans)
        features.append(_feature(field, content.loans, bins, content.late, fold))
    progress("measuring features", 1.0)
    paired = _most_informative(features)
    return BookStudy(
        book=Path(book.name).name,
        model=definition.model,
        definition=source or definition.model,
        label=definition.label.column,
        overall=overall,
        excluded=content.excluded,
        without_outcome=content.without_outcome,
        faults=content.faults,
        notes=content.notes,
        doubts=tuple(content.doubts.texts),
        rows_with_warnings=content.doubts.rows_with_warnings,
        features=tuple(features),
        spearman=_spearman([definition[name] for name in paired], content.loans),
        cramer=_cramer([definition[name] for name in paired], binned),
    )


class _BookContent(NamedTuple):
    loans: Loans
    late: Codes
    excluded: int
    without_outcome: int
    faults: tuple[RowFault, ...]
    notes: tuple[str, ...]
    doubts: BookDoubts


def _read(book: Book, definition: Definition, progress: Progress) -> _BookContent:
    notes = check_columns(definition, book, label=True)
    loans: list[Loans] = []
    late: list[Codes] = []
    rows = without_outcome = 0
    faults: Counter[tuple[str, str]] = Counter()
    doubts = DoubtCollector(book.name, definition)
    for part in book.parts(lambda done: progress(f"reading {book.name}", done)):
        batch = read_loans(definition, part, label=True, open_label=True)
        rows += part.size
        faults.update((problem.field, problem.expected) for problem in part.problems)
        for fault in batch.faults:
            faults[fault.field, fault.expected] += len(fault.places)
        doubts.add(batch)
        labels = np.asarray(batch.labels)
        without_outcome += int(np.count_nonzero(labels < 0))
        loans.append(batch.loans.take(labels >= 0))
        late.append(labels[labels >= 0])
    valid = sum(part.size for part in loans)
    if not valid:
        unknown = f", {without_outcome} without an outcome yet" if without_outcome else ""
        raise BookError(
            f"{book.name}: expected at least one valid row, given {rows}, none valid{unknown}; "
            "`peerloan check` lists the faults"
        )
    return _BookContent(
        join_loans(loans),
        np.concatenate(late),
        rows - valid - without_outcome,
        without_outcome,
        tuple(
            RowFault(field, expected, count) for (field, expected), count in faults.most_common()
        ),
        tuple(notes),
        doubts.result(),
    )


def _feature(field: Field, loans: Loans, bins: Bins, late: Codes, fold: Codes) -> Feature:
    size = np.bincount(bins.codes, minlength=len(bins.labels))
    late_size = np.bincount(bins.codes[late == 1], minlength=len(bins.labels))
    missing = int(size[-1]) if "missing" in bins.kinds else 0
    values = order_values(field, loans)
    n_late = int(late_size.sum())
    information = measures.information_value(late_size, size - late_size)
    if field.is_number:
        numbers = loans.numbers(field.name)
        numbers = numbers[~np.isnan(numbers)]
        different = len(np.unique(numbers))
    else:
        numbers = np.empty(0)
        codes = loans.texts(field.name).codes
        different = len(np.unique(codes[codes >= 0]))
    return Feature(
        name=field.name,
        label=field.label,
        help=field.help,
        unit=field.unit,
        kind=field.kind,
        percent=field.percent,
        given=loans.size - missing,
        missing=missing,
        different=different,
        bins=tuple(
            Bin(label, kind, int(count) / loans.size, Rate.of(int(late_count), int(count)))
            for label, kind, count, late_count in zip(
                bins.labels, bins.kinds, size, late_size, strict=True
            )
        ),
        information=information,
        by_chance=None
        if information is None
        else measures.information_by_chance(len(size), n_late, loans.size - n_late),
        auc=discrimination.level_auc(bins.codes, late, fold)
        if values is None
        else discrimination.auc(values, late),
        correlation=None if values is None else _correlation_with_label(values, late),
        numeric=_numeric(field, np.sort(numbers)) if len(numbers) else None,
    )


def _correlation_with_label(values: Numbers, late: Codes) -> float | None:
    correlation = float(measures.rank_correlations(np.array([values, late]))[0, 1])
    return None if np.isnan(correlation) else correlation


def _numeric(field: Field, values: Numbers) -> NumberFigures:
    """Compute the figures of sorted numbers."""
    different, counts = np.unique(values, return_counts=True)
    skewness = measures.skewness(values)
    extremes = Extremes()
    extremes.add(values)
    codes, outside = extremes.missing_codes(), None
    if (seen := field.seen_range_rounded) is not None:
        outside = int(((values < seen[0]) | (values > seen[1])).sum())
    return NumberFigures(
        lowest=float(values[0]),
        median=float(np.median(values)),
        highest=float(values[-1]),
        skewness=skewness,
        histogram=_histogram(field, values, different, skewness or 0.0),
        common=int(np.sort(counts)[-_COMMON_VALUES:].sum()) / len(values),
        at_lowest=int(counts[0]),
        at_highest=int(counts[-1]),
        highest_is_code=codes is not None and float(values[-1]) > codes.highest,
        above_one=int((values > 1).sum()),
        zeros=int((values == 0).sum()),
        zero_spike=field.kind == "number" and _is_zero_spike(different, counts),
        high=_far_values(values, 0.99, 1),
        low=_far_values(values, 0.01, -1),
        outside=outside,
    )


def _histogram(
    field: Field, values: Numbers, different: Numbers, skewness: float
) -> Histogram | None:
    low, high = float(values[0]), float(values[-1])
    log_x = skewness > _VERY_SKEWED and low > 0 and field.kind == "number"
    log_y = abs(skewness) > _VERY_SKEWED and not log_x
    with np.errstate(over="ignore"):
        if not np.isfinite(high - low):
            return None
    if field.kind == "whole" and high - low < _MOST_COLUMNS:
        edges = np.arange(low - 0.5, high + 1)
    elif log_x:
        edges = np.geomspace(low, high, _MOST_COLUMNS + 1)
    elif len(different) == 1:
        edges = np.array([low - 0.5, low + 0.5])
    else:
        edges = np.linspace(low, high, _MOST_COLUMNS + 1)
    # Rounding may put an end of the range just outside.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    if not (np.diff(edges) > 0).all():  # too large to distinguish neighbours
        return None
    counts, _ = np.histogram(values, edges)
    return Histogram(tuple(edges.tolist()), tuple(counts.tolist()), log_x, log_y)


def _is_zero_spike(different: Numbers, counts: Codes) -> bool:
    """Whether far more values are 0 than any of the values near it."""
    place = int(np.searchsorted(different, 0))
    if len(different) <= 5 * _NEIGHBOURS or place == len(different) or different[place]:
        return False
    nearby = counts[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
    return bool(counts[place] >= 10 * (nearby.sum() - counts[place]) / (len(nearby) - 1))


def _far_values(values: Numbers, quantile: float, side: int) -> FarValues | None:
    """Measure the values beyond three times the quantile's distance from the median, if any.

    `side` is 1 for the high end and −1 for the low end.
    """
    usual = float(np.quantile(values, quantile, method="inverted_cdf"))
    median = float(np.median(values))
    bound = median + _FAR_DISTANCES * (usual - median)
    extreme = float(values[-1] if side > 0 else values[0])
    beyond = int((side * (values - bound) > 0).sum()) if np.isfinite(bound) else 0
    return FarValues(usual, bound, extreme, beyond) if beyond else None


def _most_informative(features: Sequence[Feature]) -> list[str]:
    """Return the names of the most informative features, in the definition's order."""
    varying = [feature for feature in features if len(feature.bins) > 1]
    best = sorted(varying, key=lambda feature: -(feature.information or 0))[:_MOST_PAIRED]
    return [feature.name for feature in varying if feature in best]


def _spearman(fields: Sequence[Field], loans: Loans) -> Matrix:
    columns = {field.name: order_values(field, loans) for field in fields}
    ranked = {name: values for name, values in columns.items() if values is not None}
    names = tuple(ranked)
    if not names:
        return Matrix((), (), ())
    correlations = measures.rank_correlations(np.array(list(ranked.values())))
    return Matrix(
        names,
        names,
        tuple(
            tuple(None if np.isnan(value) else float(value) for value in row)
            for row in correlations
        ),
    )


def _cramer(fields: Sequence[Field], binned: dict[str, Bins]) -> Matrix:
    rows = tuple(field.name for field in fields if field.kind == "category")
    columns = tuple(field.name for field in fields)
    return Matrix(
        rows,
        columns,
        tuple(
            tuple(measures.cramers_v(binned[row].codes, binned[other].codes) for other in columns)
            for row in rows
        ),
    )
