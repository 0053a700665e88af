"""Reasons: the features that raise a loan's risk most, each with a sentence.

`Reasons` makes them for one loan, `BatchReasons` for many loans in columns.
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

# The commentary to Regulation B, § 1002.9(b)(2): more than four reasons is not likely to help.
MAX_REASONS = 4
# Sentences that are cached for each field; one takes about 200 bytes.
_CACHED_SENTENCES = 1024


class Reason(msgspec.Struct, frozen=True, gc=False):
    """One feature that raises this loan's risk above the average, and a sentence to say so."""

    feature: str
    value: Value
    contribution: float
    sentence: str


class ReasonKey(NamedTuple):
    """What a reason is made from: the field's position, its value and its contribution."""

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
        """The reasons that follow from contributions (n, fields); a row of NaN has none.

        Equal contributions keep the fields' order, as in `Reasons.of`.
        """
        order = np.argsort(-contributions, axis=1, kind="stable")[:, :MAX_REASONS]
        largest = np.take_along_axis(contributions, order, axis=1)
        return cls(loans, np.where(largest > 0, order, -1), largest)

    @property
    def places(self) -> Codes:
        """Each reason's place in `keys`, −1 for no reason; int64 (n, ≤ 4)."""
        return self._distinct[0]

    @property
    def keys(self) -> list[ReasonKey]:
        """The distinct reasons: many loans share one. 0.0 and −0.0, which are written differently,
        are two values.
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
    """Turns contributions into at most four reasons; everything it says comes from the bundle.

    `points(position, value)` is what a value of the field at this position contributes, where that
    depends on nothing else: then two values are compared only if the riskier one is to blame.
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
        """What is said of a value of the field at this position."""
        return self._sentences[position](value)

    def of(self, values: Sequence[Value], contributions: Sequence[float]) -> list[Reason]:
        """The reasons of one loan, largest contribution first; equal ones in the fields' order."""
        raising = [(-c, i) for i, c in enumerate(contributions) if c > 0]
        raising.sort()
        return [
            Reason(self._fields[i].name, values[i], -c, self._sentences[i](values[i]))
            for c, i in raising[:MAX_REASONS]
        ]

    def of_batch(
        self, batch: BatchReasons, values: Sequence[Sequence[Value]]
    ) -> list[list[Reason]]:
        """The reasons of many loans, one list a loan; equal to `of` for each loan.

        `values` are those of the loans, as `Loans.values_by_field` makes them.
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
    usual_shown = field.show(usual)

    def sayer(template: str) -> Callable[[str], str]:
        """The template with label and usual filled in, waiting for its value."""
        filling = {
            "{label}": field.label,
            "{usual}": usual_shown,
            "{more}": field.more,
            "{less}": field.less,
        }
        # What is filled in may look like a placeholder itself: no part is looked at twice.
        parts = [
            "".join(filling.get(piece, piece) for piece in re.split(r"(\{\w+\})", part))
            for part in template.split("{value}")
        ]
        return lambda shown: shown.join(parts)

    higher, lower, equal = sayer(texts.higher), sayer(texts.lower), sayer(texts.equal)
    level, unseen, missing = sayer(texts.level), sayer(texts.unseen), sayer(texts.missing)
    seen = frozenset(field.seen_levels)
    ranks: dict[Value, int] = {each: rank for rank, each in enumerate(field.levels)}

    def of_category(value: Value) -> str:
        if value is None:
            return missing("")
        if value not in seen:
            return unseen(field.show(value))
        return (equal if value == usual else level)(field.show(value))

    def compared(is_higher: bool, value: Value) -> str:
        shown = field.show(value)
        # On the safer side by the definition, or no riskier than the usual value by the model, and
        # yet a reason: no comparison would explain it.
        safer = field.riskier is not None and is_higher != (field.riskier == "higher")
        if safer or (points is not None and points(value) <= points(usual)):
            return level(shown)
        return (higher if is_higher else lower)(shown)

    def of_ordered(value: Value) -> str:
        if value is None:
            return missing("")
        shown, rank, usual_rank = field.show(value), ranks[value], ranks.get(usual)
        if usual_rank is None or rank == usual_rank:
            return equal(shown)
        return compared(rank > usual_rank, value)

    def of_number(value: Value) -> str:
        if value is None:
            return missing("")
        shown = field.show(value)
        if usual is None or shown == usual_shown:
            return equal(shown)
        return compared(value > usual, value)  # type: ignore[operator]

    made = of_number if field.is_number else of_ordered if field.kind == "ordered" else of_category
    # Rates, grades and purposes come again and again.
    return lru_cache(maxsize=_CACHED_SENTENCES)(made)
