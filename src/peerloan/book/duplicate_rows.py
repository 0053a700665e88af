"""Detect duplicate rows, as in a table that was oversampled or joined twice.

Two rows are duplicates if all their fields are equal, numbers compared in single precision as a
model sees them. Ids, labels and other columns are not compared, nor is a field that differs in each
of the first rows, such as a row number: it would hide copies. In a table of few fields with few
values, many rows are equal by chance; duplicates are reported only if chance does not explain them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Column, Loans, TextColumn
from peerloan.stats.arrays import Codes, Numbers

Hashes = npt.NDArray[np.uint64]

# Rows that the chance estimate uses; of a larger table, a random sample of about this size.
_SAMPLED = 200_000
# At most this many values (rows × fields) in the sample: fewer rows of a very wide table.
_SAMPLED_VALUES = 20_000_000
# A field with at most this many distinct values is treated as categorical.
_FEW_VALUES = 100
# With at most this many distinct rows chance can't be estimated: if one field follows from another,
# few rows differ in a single field. Training needs more different loans anyway.
_FEW_ROWS = 20
# Thresholds for reporting: the ratio of equal pairs to those that chance explains, the number of
# equal pairs, and the share of rows. (In ordinary tables chance explains from half of the pairs to
# five times as many; fewer duplicates than this share change no figure.)
_TIMES, _LEAST_PAIRS, _LEAST_SHARE = 10, 5, 0.001


@dataclass(frozen=True)
class DuplicateCount:
    """How many of a table's rows equal an earlier one.

    `late` counts the late loans among these; None if outcomes are unknown. `apart` names the
    fields that were not compared, since they differ in each row.
    """

    rows: int
    repeated: int
    late: int | None
    apart: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The finding as a sentence, with advice."""
        late = "" if self.late is None else f", {self.late:,} of them late"
        but = f" but {', '.join(self.apart)}" if self.apart else ""
        return (
            f"{self.repeated:,} of {self.rows:,} rows ({self.repeated / self.rows:.1%}) equal an "
            f"earlier one in every field{but}{late}, many more than chance explains: was the table "
            "oversampled, or joined twice? Train on the original table (training tries class "
            "weights and SMOTE by itself). Training keeps equal rows in one fold; but its "
            "probabilities follow this table's late rate, and intervals that count rows are too "
            "narrow"
        )


class DuplicateRows:
    """Collects row hashes while a table is read.

    Memory: 8 bytes a row, and the field hashes of a sample of at most `sampled_rows`.
    """

    def __init__(self, sampled_rows: int = _SAMPLED) -> None:
        self._hashes: list[Hashes] = []
        self._late: list[Codes] = []
        self._sample = _Sample(sampled_rows)
        # Positions of the compared fields, and the names of the others.
        self._fields: Codes | None = None
        self._apart: tuple[str, ...] = ()

    @classmethod
    def of(cls, loans: Loans, late: Codes | Numbers | None = None) -> DuplicateRows:
        """Collect one table in memory; `late` (n,) is 1 for each late loan."""
        rows = cls()
        rows.add(loans, late)
        return rows

    def add(self, loans: Loans, late: Codes | Numbers | None = None) -> None:
        """Add the next rows. Give `late` (n,) in every call or in none."""
        by_field = _hash_fields(loans)
        if self._fields is None and loans.size:
            all_differ = [len(np.unique(field)) == loans.size > 1 for field in by_field.T]
            skipped = np.array(all_differ) & (not all(all_differ))
            self._fields = np.flatnonzero(~skipped)
            names = loans.definition.names
            self._apart = tuple(names[place] for place in np.flatnonzero(skipped))
        by_field = by_field if self._fields is None else by_field[:, self._fields]
        self._hashes.append(_row_hashes(by_field))
        if late is not None:
            self._late.append(np.asarray(late, dtype=np.int64))
        self._sample.add(by_field, np.zeros(loans.size) if late is None else late)

    @property
    def hashes(self) -> Hashes:
        """A hash of each row (n,); equal rows have equal hashes."""
        return np.concatenate([np.empty(0, np.uint64), *self._hashes])

    @property
    def is_beyond_chance(self) -> bool:
        """Whether there are many more equal rows than chance explains."""
        return self._sample.beyond_chance

    def groups(self) -> Codes | None:
        """The group number of each row (n,), the same for equal rows; None if chance explains them.

        Groups are numbered in the order of their first rows.
        """
        if not self.is_beyond_chance:
            return None
        # Not in the order of the hashes, which differ between processes: folds depend on the order.
        _, firsts, places = np.unique(self.hashes, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(firsts))[places]

    def repeated(self) -> DuplicateCount | None:
        """Count the rows that equal an earlier one; None if chance explains them."""
        if not self.is_beyond_chance:
            return None
        hashes = self.hashes
        again = np.ones(len(hashes), dtype=np.bool_)
        again[np.unique(hashes, return_index=True)[1]] = False
        late = int(np.concatenate(self._late)[again].sum()) if self._late else None
        return DuplicateCount(len(hashes), int(again.sum()), late, self._apart)


class _Sample:
    """A uniform random sample of rows, as the hashes of their fields.

    It is thinned by half whenever it grows too large.
    """

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._random = np.random.default_rng(0)
        self._share = 1.0
        self._rows: list[Hashes] = []
        self._late: list[npt.NDArray[np.bool_]] = []

    def add(self, by_field: Hashes, late: Codes | Numbers) -> None:
        kept = self._random.random(len(by_field)) < self._share
        self._rows.append(by_field[kept])
        self._late.append(late[kept] == 1)
        most = min(self._most_rows, _SAMPLED_VALUES // max(by_field.shape[1], 1))
        while sum(map(len, self._rows)) > most:
            rows, outcomes = np.concatenate(self._rows), np.concatenate(self._late)
            kept = self._random.random(len(rows)) < 0.5
            self._rows, self._late = [rows[kept]], [outcomes[kept]]
            self._share /= 2

    @property
    def beyond_chance(self) -> bool:
        """Tests all rows, the late ones and the others: often only one class was oversampled."""
        if not sum(map(len, self._rows)):
            return False
        rows, late = np.concatenate(self._rows), np.concatenate(self._late)
        return any(_beyond_chance(subset) for subset in (rows, rows[late], rows[~late]))


def _beyond_chance(by_field: Hashes) -> bool:
    """Whether the rows (n, fields) hold many more equal pairs than chance explains.

    The estimate uses pairs that differ in a single field. If A pairs differ in one field only, and
    two random rows share that field's value with probability c, then chance explains
    A·c/(1 − c) equal pairs. The field that explains most is used. The most frequent row is left
    out: many loans may share it by nature, such as the row of borrowers without any history.
    """
    _, places, counts = np.unique(_row_hashes(by_field), return_inverse=True, return_counts=True)
    if len(counts):
        by_field = by_field[places != np.argmax(counts)]
    n = len(by_field)
    rows = _row_hashes(by_field)
    equal = _count_equal_pairs(rows)
    distinct_rows = len(np.unique(rows))
    if equal < _LEAST_PAIRS or n - distinct_rows < _LEAST_SHARE * n or distinct_rows <= _FEW_ROWS:
        return False
    explained = []
    by_field = _without_copies(by_field)
    rows = _row_hashes(by_field)
    for field in by_field.T:
        shared = _count_equal_pairs(field) / (n * (n - 1) / 2)
        if shared < 1:
            but_one = _count_equal_pairs(rows - field) - equal
            explained.append(but_one * shared / (1 - shared))
    return bool(explained) and equal > _TIMES * max(explained)


def _without_copies(by_field: Hashes) -> Hashes:
    """Drop categorical fields that repeat an earlier one in other words, as a name repeats a code.

    Two rows can't differ in only one of such fields, so they would hide the density of the table.
    """
    first_by_codes: dict[object, int] = {}
    for place, field in enumerate(by_field.T):
        _, firsts, codes = np.unique(field, return_index=True, return_inverse=True)
        few = len(firsts) <= _FEW_VALUES
        first_by_codes.setdefault(firsts[codes].tobytes() if few else place, place)
    return by_field[:, [*first_by_codes.values()]]


def _count_equal_pairs(hashes: Hashes) -> float:
    """Count the pairs of equal hashes."""
    counts = np.unique(hashes, return_counts=True)[1].astype(np.float64)
    return float(np.sum(counts * (counts - 1))) / 2


def _row_hashes(by_field: Hashes) -> Hashes:
    """A hash of each row: the sum modulo 2⁶⁴, so that one field's hash can be subtracted."""
    total: Hashes = by_field.sum(axis=1, dtype=np.uint64)
    return total


def _hash_fields(loans: Loans) -> Hashes:
    """Hash each field of each loan: (n, fields)."""
    hashes = np.empty((loans.size, len(loans.definition.names)), dtype=np.uint64)
    for place, name in enumerate(loans.definition.names):
        hashes[:, place] = _mix_bits(
            _value_bits(loans.columns[name]) + _mix_bits(np.uint64(place + 1))
        )
    return hashes


def _value_bits(column: Column) -> Hashes:
    """Map each value to bits (n,); equal values have equal bits."""
    if isinstance(column, TextColumn):
        levels = [hash(level) % 2**64 for level in column.levels]
        return np.array([*levels, 0], dtype=np.uint64)[column.codes]
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
    # −0 is 0, and every NaN is the same.
    single = np.where(np.isnan(single), np.float32(np.nan), single + np.float32(0))
    return single.view(np.uint32).astype(np.uint64)


def _mix_bits(bits: npt.NDArray[np.uint64] | np.uint64) -> Hashes:
    """Mix the bits: the finalizer of SplitMix64 (G. Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = np.atleast_1d(bits) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
