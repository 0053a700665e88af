"""Bins of a feature: tenths of a number's values, levels of a category, and missing values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from peerloan.loan import Field, Loans
from peerloan.stats.arrays import Codes, Numbers

_TENTHS = np.arange(1, 10) / 10
# A number with at most this many different values has one bin for each value.
_FEW_VALUES = 10
# The rare levels of a category with more levels share one bin.
_MOST_LEVELS = 20

Kind = Literal["range", "level", "others", "missing"]


@dataclass(frozen=True)
class Bins:
    """The bins of a column: loan i is in bin `codes[i]` (n,), and no bin is empty."""

    codes: Codes
    labels: tuple[str, ...]
    kinds: tuple[Kind, ...]


def bin_field(field: Field, loans: Loans) -> Bins:
    """Assign the loans to bins of a field's values.

    Bins of numbers and of ordered levels are in ascending order, levels of a category by falling
    frequency. Missing values are the last bin.
    """
    if field.is_number:
        return _number_bins(field, loans.numbers(field.name))
    column = loans.texts(field.name)
    if field.kind == "ordered":
        return _ordered_bins(field, column.recode(field.levels, unseen=-1))
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.levels))
    order = sorted(range(len(counts)), key=lambda code: (-counts[code], column.levels[code]))
    levels = [column.levels[code] for code in order if counts[code]]
    with_own_bin = levels if len(levels) <= _MOST_LEVELS else levels[: _MOST_LEVELS - 1]
    kinds: list[Kind] = ["level"] * len(with_own_bin)
    if rest := len(levels) - len(with_own_bin):
        kinds.append("others")
    codes = column.recode(with_own_bin, unseen=len(with_own_bin))
    labels = [*with_own_bin, *([f"{rest} other levels"] if rest else [])]
    return _with_missing(codes, labels, kinds)


def order_values(field: Field, loans: Loans) -> Numbers | None:
    """Return a number's values or an ordered category's ranks, NaN if missing; otherwise None."""
    if field.is_number:
        return loans.numbers(field.name)
    if field.kind == "ordered":
        codes = loans.texts(field.name).recode(field.levels, unseen=-1).astype(np.float64)
        codes[codes < 0] = np.nan
        return codes
    return None


def show_plain(field: Field, values: Sequence[float]) -> list[str]:
    """Format numbers without their unit, with as few digits (at least four) as distinguish them."""
    factor, sign = (100, " %") if field.percent else (1, "")
    texts: list[str] = []
    for digits in range(4, 16):
        texts = [_digits(value * factor, digits) + sign for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _digits(value: float, digits: int) -> str:
    size = abs(value)
    if value and not 1e-6 <= size < 1e15:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size))) if value else 0
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def _number_bins(field: Field, values: Numbers) -> Bins:
    present = np.sort(values[~np.isnan(values)])
    different = np.unique(present)
    if len(different) <= _FEW_VALUES:
        ends = different[:-1]
    else:
        # An observed value as the edge, so that equal values are always in the same bin.
        ends = np.unique(np.quantile(present, _TENTHS, method="inverted_cdf"))
        ends = ends[ends < present[-1]]
    codes = np.where(np.isnan(values), -1, np.searchsorted(ends, values, side="left"))
    labels = []
    if len(present):
        starts = np.append(0, np.searchsorted(present, ends, side="right"))
        lowest = present[starts]
        highest = present[np.append(starts[1:], len(present)) - 1]
        texts = show_plain(field, [*lowest.tolist(), *highest.tolist()])
        half = len(lowest)
        labels = [
            low if low == high else f"{low.removesuffix(' %')} – {high}"
            for low, high in zip(texts[:half], texts[half:], strict=True)
        ]
    return _with_missing(codes, labels, ["range"] * len(labels))


def _ordered_bins(field: Field, codes: Codes) -> Bins:
    """Make one bin for each level, or tenths of the loans if there are too many levels."""
    present = codes[codes >= 0]
    used = np.unique(present)
    if len(used) <= _MOST_LEVELS:
        ends = used[:-1]
    else:
        ends = np.unique(np.quantile(present, _TENTHS, method="inverted_cdf"))
        ends = ends[ends < used[-1]]
    binned = np.where(codes < 0, -1, np.searchsorted(ends, codes, side="left"))
    labels = []
    for place in range(len(ends) + 1 if len(used) else 0):
        in_bin = np.unique(codes[binned == place])
        first, last = field.levels[in_bin[0]], field.levels[in_bin[-1]]
        labels.append(first if first == last else f"{first} – {last}")
    return _with_missing(binned, labels, ["level"] * len(labels))


def _with_missing(codes: Codes, labels: list[str], kinds: list[Kind]) -> Bins:
    """Add the bin of missing values, whose code is −1, if there are any."""
    missing = codes < 0
    if missing.any():
        codes = np.where(missing, len(labels), codes)
        labels, kinds = [*labels, "missing"], [*kinds, "missing"]
    return Bins(codes, tuple(labels), tuple(kinds))
