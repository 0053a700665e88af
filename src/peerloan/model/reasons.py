"""Reasons: the features that raise a loan's risk most, with a sentence for each.

`Reasons` makes the reasons of one loan, `BatchReasons` those of many loans in columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import NamedTuple

import msgspec
import numpy as np

from peerloan.loan import Definition, Field, Loans, ReasonTemplates, Value, distinct
from peerloan.model.reference_profile import ReferenceProfile
from peerloan.stats.arrays import Codes, Numbers

# Source: the commentary to Regulation B, § 1002.9(b)(2): more than four reasons are unlikely to
# help an applicant.
MAX_REASONS = 4
# Number of cached sentences for each field. A sentence takes about 200 bytes.
_CACHED_SENTENCES = 1024


class Reason(msgspec.Struct, frozen=True, gc=False):
    """A feature that raises a loan's risk above the average, and a sentence that explains it."""

    feature: str
    value: Value
    contribution: float
    sentence: str


class ReasonKey(NamedTuple):
    """The data of a reason: the field's position, its value and its contribution in log-odds."""

    position: int
    value: Value
    contribution: float


@dataclass(frozen=True)
class BatchReasons:
    """The reasons of n loans in columns, largest contribution first.

    `positions`, int64 (n, ≤ 4): the positions of the reasons' fields, −1 for no reason.
    `contributions`, float64 (n, ≤ 4): their contributions in log-odds, undefined for no reason.
    """

    loans: Loans
    positions: Codes
    contributions: Numbers

    @classmethod
    def of(cls, loans: Loans, contributions: Numbers) -> BatchReasons:
        """Derive reasons from contributions (n, fields). A row of NaN has no reasons.

        Equal contributions are in the order of the fields, as in `Reasons.of`.
        """
        order = np.argsort(-contributions, axis=1, kind="stable")[:, :MAX_REASONS]
        largest = np.take_along_axis(contributions, order, axis=1)
        return cls(loans, np.where(largest > 0, order, -1), largest)

    @property
    def places(self) -> Codes:
        """The index of each reason in `keys`, −1 for no reason; int64 (n, ≤ 4)."""
        return self._distinct[0]

    @property
    def keys(self) -> list[ReasonKey]:
        """The distinct reasons. Many loans share a reason.

        0.0 and −0.0 are two values here, because they are written differently.
        """
        return self._distinct[1]

    @cached_property
    def _distinct(self) -> tuple[Codes, list[ReasonKey]]:
        places = np.full(self.positions.shape, -1, dtype=np.int64)
        keys: list[ReasonKey] = []
        for position, name in enumerate(self.loans.definition.names):
            cells = np.nonzero(self.positions == position)
            by_value, values = distinct(self.loans.columns[name].take(cells[0]))
            by_points, points = distinct(self.contributions[cells])
            pairs, inverse = np.unique(by_value * len(points) + by_points, return_inverse=True)
            places[cells] = inverse + len(keys)
            for pair in pairs.tolist():
                value, contribution = values[pair // len(points)], points[pair % len(points)]
                keys.append(ReasonKey(position, value, contribution))
        return places, keys


class Reasons:
    """Turns contributions into at most four reasons, with sentences from the bundle's templates.

    `points(position, value)` returns the contribution of a value of the field at this position. It
    is None for models whose contributions also depend on other fields. With it, a sentence compares
    a value with the usual one only if the value contributes more.
    """

    def __init__(
        self,
        definition: Definition,
        profile: ReferenceProfile,
        points: Callable[[int, Value], float] | None = None,
    ) -> None:
        self._fields = definition.fields
        self._sentences = [
            _sentence_maker(
                field,
                definition.texts,
                profile.usual(field.name),
                None if points is None else partial(points, position),
            )
            for position, field in enumerate(definition.fields)
        ]

    def sentence(self, position: int, value: Value) -> str:
        """Return the sentence about a value of the field at this position."""
        return self._sentences[position](value)

    def of(self, values: Sequence[Value], contributions: Sequence[float]) -> list[Reason]:
        """Return the reasons of one loan, largest contribution first.

        Equal contributions are in the order of the fields.
        """
        raising = [(-c, i) for i, c in enumerate(contributions) if c > 0]
        raising.sort()
        return [
            Reason(self._fields[i].name, values[i], -c, self._sentences[i](values[i]))
            for c, i in raising[:MAX_REASONS]
        ]

    def of_batch(
        self, batch: BatchReasons, values: Sequence[Sequence[Value]]
    ) -> list[list[Reason]]:
        """Return the reasons of many loans, one list for each loan, equal to the result of `of`.

        `values` are the values of the loans, as returned by `Loans.values_by_field`.
        """
        names, sentences = batch.loans.definition.names, self._sentences
        cells = zip(batch.positions.tolist(), batch.contributions.tolist(), strict=True)
        return [
            [
                Reason(names[i], value := values[i][loan], points, sentences[i](value))
                for i, points in zip(positions, contributions, strict=True)
                if i >= 0
            ]
            for loan, (positions, contributions) in enumerate(cells)
        ]


def _sentence_maker(
    field: Field, texts: ReasonTemplates, usual: Value, points: Callable[[Value], float] | None
) -> Callable[[Value], str]:
    """Return a function that makes the sentence about a value of a field.

    `usual` is the field's usual value. `points` returns the contribution of a value, if it depends
    on nothing else.
    """
    usual_text = field.show(usual)

    def fill(template: str) -> Callable[[str], str]:
        """Fill in all placeholders but {value}; return a function that fills in the value."""
        texts_by_placeholder = {
            "{label}": field.label,
            "{usual}": usual_text,
            "{more}": field.more,
            "{less}": field.less,
        }
        # A label or value may look like a placeholder, so every part is replaced only once.
        parts = [
            "".join(
                texts_by_placeholder.get(piece, piece) for piece in re.split(r"(\{\w+\})", part)
            )
            for part in template.split("{value}")
        ]
        return lambda value_text: value_text.join(parts)

    higher, lower, equal = fill(texts.higher), fill(texts.lower), fill(texts.equal)
    level, unseen, missing = fill(texts.level), fill(texts.unseen), fill(texts.missing)
    seen_levels = frozenset(field.seen_levels)
    ranks: dict[Value, int] = {name: rank for rank, name in enumerate(field.levels)}

    def describe_category(value: Value) -> str:
        if value is None:
            return missing("")
        if value not in seen_levels:
            return unseen(field.show(value))
        return (equal if value == usual else level)(field.show(value))

    def compare(is_higher: bool, value: Value) -> str:
        # "Higher than usual" does not explain a reason if the value is on the safer side by the
        # definition, or if the usual value contributes as much by the model.
        is_safer = field.riskier is not None and is_higher != (field.riskier == "higher")
        if is_safer or (points is not None and points(value) <= points(usual)):
            return level(field.show(value))
        return (higher if is_higher else lower)(field.show(value))

    def describe_ordered(value: Value) -> str:
        if value is None:
            return missing("")
        rank, usual_rank = ranks[value], ranks.get(usual)
        if usual_rank is None or rank == usual_rank:
            return equal(field.show(value))
        return compare(rank > usual_rank, value)

    def describe_number(value: Value) -> str:
        if value is None:
            return missing("")
        value_text = field.show(value)
        if usual is None or value_text == usual_text:
            return equal(value_text)
        return compare(value > usual, value)  # type: ignore[operator]

    if field.is_number:
        describe = describe_number
    else:
        describe = describe_ordered if field.kind == "ordered" else describe_category
    # Many loans have the same values.
    return lru_cache(maxsize=_CACHED_SENTENCES)(describe)
