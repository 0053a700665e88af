"""Rows that equal an earlier one, as in a table that was oversampled or joined twice.

Rows are equal if every field is, as a model sees it (a number in single precision); ids, labels and
columns that are no field don't count, nor does a field that differs in each of the first rows, such
as a row number: it would hide copies. Of few fields with few values many loans are equal by chance:
so it is asked first whether chance explains them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from peerloan.loan import Column, Loans, TextColumn
from peerloan.stats.arrays import Codes, Numbers

Hashes = npt.NDArray[np.uint64]

# Rows by which it is judged whether chance explains equal ones; of a larger table a random sample.
_SAMPLED = 200_000
# And of one of very many columns fewer rows: so many values in all.
_SAMPLED_VALUES = 20_000_000
# A field of no more different values is one of levels.
_FEW_VALUES = 100
# Among so few different rows chance can't be estimated: where one field follows
# from another, none of them may differ in one field alone.
_FEW_ROWS = 12
# More than so many times as many equal pairs as chance explains, at least so many, in at least this
# share of the rows. (Of ordinary tables it explains between a half of the pairs and five times as
# many; fewer rows than this share change no figure.)
_TIMES, _LEAST_PAIRS, _LEAST_SHARE = 10, 5, 0.001


@dataclass(frozen=True)
class Repeated:
    """How many of a table's rows equal an earlier one; `late` are the late ones of these, None if
    outcomes are not known; `apart` are the fields that don't count, since they differ in each row.
    """

    rows: int
    repeated: int
    late: int | None
    apart: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The doubt in words."""
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


class EqualRows:
    """The rows of a table while it is read, as hashes: 8 bytes a row, and those of a sample's
    fields.
    """

    def __init__(self) -> None:
        self._hashes: list[Hashes] = []
        self._late: list[Codes] = []
        self._sample = _Sample()
        # The fields that count, by their places; and the names of the others.
        self._fields: Codes | None = None
        self._apart: tuple[str, ...] = ()

    @classmethod
    def of(cls, loans: Loans, late: Codes | Numbers | None = None) -> EqualRows:
        """Those of one table in memory; `late` (n,) is 1 for each late loan."""
        rows = cls()
        rows.add(loans, late)
        return rows

    def add(self, loans: Loans, late: Codes | Numbers | None = None) -> None:
        """Take in the next rows; with `late` (n,) for all of them or for none."""
        by_field = _hash_fields(loans)
        if self._fields is None and loans.size:
            different = [len(np.unique(field)) == loans.size > 1 for field in by_field.T]
            apart = np.array(different) & (not all(different))
            self._fields = np.flatnonzero(~apart)
            names = loans.definition.names
            self._apart = tuple(names[place] for place in np.flatnonzero(apart))
        by_field = by_field if self._fields is None else by_field[:, self._fields]
        self._hashes.append(_sum(by_field))
        if late is not None:
            self._late.append(np.asarray(late, dtype=np.int64))
        self._sample.add(by_field, np.zeros(loans.size) if late is None else late)

    @property
    def hashes(self) -> Hashes:
        """A hash of each row (n,), the same for equal rows."""
        return np.concatenate([np.empty(0, np.uint64), *self._hashes])

    @property
    def beyond_chance(self) -> bool:
        """Whether there are many more equal rows than chance explains."""
        return self._sample.beyond_chance

    def groups(self) -> Codes | None:
        """The number of each row's group of equal rows (n,), in the order in which groups begin;
        None if chance explains them.
        """
        if not self.beyond_chance:
            return None
        # Not in the order of the hashes, which are others in each process: folds follow from these.
        _, firsts, places = np.unique(self.hashes, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(firsts))[places]

    def repeated(self) -> Repeated | None:
        """How many rows equal an earlier one; None if chance explains them."""
        if not self.beyond_chance:
            return None
        hashes = self.hashes
        again = np.ones(len(hashes), dtype=np.bool_)
        again[np.unique(hashes, return_index=True)[1]] = False
        late = int(np.concatenate(self._late)[again].sum()) if self._late else None
        return Repeated(len(hashes), int(again.sum()), late, self._apart)


class _Sample:
    """Rows of a table by the hashes of their fields, each row with the same chance of being here;
    as many as fit.
    """

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)
        self._share = 1.0
        self._rows: list[Hashes] = []
        self._late: list[npt.NDArray[np.bool_]] = []

    def add(self, by_field: Hashes, late: Codes | Numbers) -> None:
        kept = self._random.random(len(by_field)) < self._share
        self._rows.append(by_field[kept])
        self._late.append(late[kept] == 1)
        most = min(_SAMPLED, _SAMPLED_VALUES // max(by_field.shape[1], 1))
        while sum(map(len, self._rows)) > most:
            rows, outcomes = np.concatenate(self._rows), np.concatenate(self._late)
            kept = self._random.random(len(rows)) < 0.5
            self._rows, self._late = [rows[kept]], [outcomes[kept]]
            self._share /= 2

    @property
    def beyond_chance(self) -> bool:
        """Asked of all rows, of late ones and of the others: often only one kind was repeated."""
        if not sum(map(len, self._rows)):
            return False
        rows, late = np.concatenate(self._rows), np.concatenate(self._late)
        return any(_beyond_chance(some) for some in (rows, rows[late], rows[~late]))


def _beyond_chance(by_field: Hashes) -> bool:
    """Whether chance explains the equal ones of these rows (n, fields).

    Pairs of rows that differ in one field alone say how dense the table is: if there are A of them
    for a field of which two rows of the table share the value with probability c, then chance would
    let A·c/(1 − c) pairs be equal in that field too. The field that explains most counts. The most
    frequent row is left out: by nature many loans may share one, such as that of no history at all.
    """
    _, places, counts = np.unique(_sum(by_field), return_inverse=True, return_counts=True)
    if len(counts):
        by_field = by_field[places != np.argmax(counts)]
    n = len(by_field)
    rows = _sum(by_field)
    equal = _pairs(rows)
    different = len(np.unique(rows))
    if equal < _LEAST_PAIRS or n - different < _LEAST_SHARE * n or different <= _FEW_ROWS:
        return False
    explained = []
    by_field = _without_copies(by_field)
    rows = _sum(by_field)
    for field in by_field.T:
        shared = _pairs(field) / (n * (n - 1) / 2)
        if shared < 1:
            but_one = _pairs(rows - field) - equal
            explained.append(but_one * shared / (1 - shared))
    return bool(explained) and equal > _TIMES * max(explained)


def _without_copies(by_field: Hashes) -> Hashes:
    """The fields (n, fields) without those of few values that tell the same rows apart as an
    earlier one does, as a code and its name: rows can't differ in one of such fields alone.
    """
    apart: dict[object, int] = {}
    for place, field in enumerate(by_field.T):
        _, firsts, codes = np.unique(field, return_index=True, return_inverse=True)
        few = len(firsts) <= _FEW_VALUES
        apart.setdefault(firsts[codes].tobytes() if few else place, place)
    return by_field[:, [*apart.values()]]


def _pairs(hashes: Hashes) -> float:
    """How many pairs are equal."""
    counts = np.unique(hashes, return_counts=True)[1].astype(np.float64)
    return float(np.sum(counts * (counts - 1))) / 2


def _sum(by_field: Hashes) -> Hashes:
    """A hash of each row, from which a field's can be taken away; it wraps around."""
    total: Hashes = by_field.sum(axis=1, dtype=np.uint64)
    return total


def _hash_fields(loans: Loans) -> Hashes:
    """A hash of each loan's fields (n, fields)."""
    found = np.empty((loans.size, len(loans.definition.names)), dtype=np.uint64)
    for place, name in enumerate(loans.definition.names):
        found[:, place] = _mixed(_bits(loans.columns[name]) + _mixed(np.uint64(place + 1)))
    return found


def _bits(column: Column) -> Hashes:
    """A number for each value (n,), the same for equal ones."""
    if isinstance(column, TextColumn):
        levels = [hash(level) % 2**64 for level in column.levels]
        return np.array([*levels, 0], dtype=np.uint64)[column.codes]
    with np.errstate(over="ignore"):
        single = column.astype(np.float32)
    # −0 is 0, and every NaN is the same.
    single = np.where(np.isnan(single), np.float32(np.nan), single + np.float32(0))
    return single.view(np.uint32).astype(np.uint64)


def _mixed(bits: npt.NDArray[np.uint64] | np.uint64) -> Hashes:
    """Bits without a pattern (the finalizer of SplitMix64; G. Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        mixed = np.atleast_1d(bits) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
