"""From a margin to a decision: the threshold, the bands, and the reasons with their sentences."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import msgspec
import numpy as np
import numpy.typing as npt

from peerloan.loan import Definition, Field, Texts, Value
from peerloan.model import arithmetic
from peerloan.model.reference_profile import Profile
from peerloan.stats.arrays import Numbers

BANDS = ("low", "medium", "high", "very high")
# The commentary to Regulation B, § 1002.9(b)(2): more than four reasons is not likely to help.
MAX_REASONS = 4
# Of each field; a sentence takes about 200 bytes.
_SENTENCES_KEPT = 1024
# What a missed late loan costs, in false alarms, where nobody says otherwise.
DEFAULT_RATIO = 20.0
# The figures that depend on where yes begins.
AT_THRESHOLD = ("recall", "flagged")


class TradeOff(msgspec.Struct, frozen=True):
    """What a threshold brings, on loans that were not fitted on.

    From `margin` on, `flagged` of all loans are called late, `recall` of the late ones among
    them; `precision` of those called late are late.
    """

    margin: float
    flagged: float
    recall: float
    precision: float


class Policy(msgspec.Struct, frozen=True):
    """Where yes begins, and the bands.

    `threshold` is a probability; decisions compare the margin with `threshold_margin`, its
    log-odds. `band_margins` are the lower ends of medium, high and very high.
    """

    aim: str
    aim_value: float
    threshold: float
    threshold_margin: float
    band_margins: tuple[float, float, float]

    @classmethod
    def by_cost(cls, ratio: float = DEFAULT_RATIO) -> Policy:
        """The threshold at which expected costs are equal: a missed late loan costs `ratio`
        false alarms, so say yes from 1 / (1 + ratio) on (Elkan 2001).
        """
        return cls.at(1 / (1 + ratio), "cost", ratio)

    @classmethod
    def at(cls, threshold: float, aim: str, aim_value: float) -> Policy:
        """A policy with the usual bands: below half the threshold, below it, below twice, above.

        Twice a threshold of a half or more is no probability: the last band then begins half-way
        to 1. Raises ValueError for a threshold that no probability can stand on both sides of.
        """
        if not 0 < threshold < 1:
            raise ValueError(f"a threshold must lie between 0 and 1; given: {threshold}")
        margin = arithmetic.margin(threshold)
        bands = (threshold / 2, 2 * threshold if threshold < 0.5 else (1 + threshold) / 2)
        return cls(
            aim,
            aim_value,
            arithmetic.probability(margin),
            margin,
            (arithmetic.margin(bands[0]), margin, arithmetic.margin(bands[1])),
        )

    @classmethod
    def by_aim(cls, aim: str, value: float, trade_off: Sequence[TradeOff]) -> Policy:
        """The policy that reaches an aim; raises ValueError with the reason if none does.

        `cost`: equal expected costs, where a missed late loan costs `value` false alarms;
        `capacity`: at most the riskiest share `value` of all loans; `recall`: as few loans as
        find the share `value` of the late ones; `f2`: the largest F-measure that weighs recall
        twice as much as precision (van Rijsbergen 1979). All but `cost` need a trade-off, and are
        reached as nearly as its steps allow.
        """
        check_aim(aim, value)
        if aim == "cost":
            return cls.by_cost(value)
        if not trade_off:
            raise ValueError(f"{aim}: this version was published without a trade-off table")
        if aim == "capacity":
            within = [row for row in trade_off if row.flagged <= value]
            if not within:
                fewest = min(row.flagged for row in trade_off)
                raise ValueError(
                    f"{aim}: no threshold of this version flags so few as {value:.4%}; "
                    f"the fewest are {fewest:.4%}"
                )
            row = max(within, key=lambda row: row.flagged)
        elif aim == "recall":
            row = min(
                (row for row in trade_off if row.recall >= value), key=lambda row: row.flagged
            )
        else:
            row = max(trade_off, key=_f2)
        return cls.at(_at_or_below(row.margin), aim, value)

    def check(self) -> None:
        """Raise ValueError unless what is shown is what is decided by."""
        if self.threshold != arithmetic.probability(self.threshold_margin):
            raise ValueError(
                f"policy: the threshold {self.threshold} is not that of its margin, "
                f"{arithmetic.probability(self.threshold_margin)}"
            )
        low, middle, high = self.band_margins
        if not (low < middle < high and middle == self.threshold_margin):
            raise ValueError(
                f"policy: expected bands that rise around the threshold, given {self.band_margins}"
            )

    def late(self, margin: float) -> bool:
        """The decision: yes from the threshold on."""
        return margin >= self.threshold_margin

    def band(self, margin: float) -> str:
        """The band of a margin."""
        return BANDS[bisect_right(self.band_margins, margin)]

    def late_many(self, margins: Numbers) -> npt.NDArray[np.bool_]:
        """The decisions (n,) of many margins."""
        return margins >= self.threshold_margin

    def bands_many(self, margins: Numbers) -> npt.NDArray[np.int64]:
        """The bands (n,) of many margins, as positions in BANDS."""
        return np.searchsorted(np.array(self.band_margins), margins, side="right")


def check_aim(aim: str, value: float) -> None:
    """Raise ValueError for an aim that no table could reach."""
    if aim not in ("cost", "capacity", "recall", "f2"):
        raise ValueError(f"expected cost, capacity, recall or f2, given {aim!r}")
    if aim == "cost" and not 0 < value < 1e6:
        raise ValueError(f"cost: expected a ratio above 0 and below 1,000,000, given {value:g}")
    if aim in ("capacity", "recall") and not 0 < value < 1:
        raise ValueError(f"{aim}: expected a share between 0 and 1, given {value:g}")


def figures_at(policy: Policy, trade_off: Sequence[TradeOff]) -> dict[str, float]:
    """Recall and share flagged at a policy's threshold, as far as a trade-off table tells."""
    if not trade_off:
        return {}
    at = [row for row in trade_off if row.margin >= policy.threshold_margin]
    if not at:  # above the first row, that is, fewer than it flags
        return {"recall": 0.0, "flagged": 0.0}
    row = max(at, key=lambda row: row.flagged)
    return {"recall": row.recall, "flagged": row.flagged}


def _at_or_below(margin: float) -> float:
    """A threshold that a loan of this margin reaches: the nearest one may lie just above it."""
    step = 1e-9  # what probabilities are rounded to
    nearest = min(max(arithmetic.probability(margin), step), 1 - step)
    above = arithmetic.margin(nearest) > margin
    return nearest - step if above and nearest > step else nearest


def _f2(row: TradeOff) -> float:
    weighed = 4 * row.precision + row.recall
    return 5 * row.precision * row.recall / weighed if weighed else 0.0


class Reason(msgspec.Struct, frozen=True):
    """One feature that raises this loan's risk above the average, and a sentence to say so."""

    feature: str
    value: Value
    contribution: float
    sentence: str


class Reasons:
    """Turns contributions into at most four reasons; everything it says comes from the bundle.

    `points(position, value)` is what a value of the field at this position contributes, where that
    depends on nothing else: then two values are compared only if the riskier one is to blame.
    """

    def __init__(
        self,
        definition: Definition,
        profile: Profile,
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

    def of_many(
        self, rows: Sequence[tuple[Value, ...]], contributions: Numbers
    ) -> list[list[Reason] | None]:
        """The reasons of many loans; equal to `of` each."""
        positions = self.positions_many(contributions)
        largest = np.take_along_axis(contributions, np.maximum(positions, 0), axis=1)
        names = [field.name for field in self._fields]
        sentences = self._sentences
        return [
            [
                Reason(names[i], value := values[i], points, sentences[i](value))
                for i, points in zip(where, own, strict=True)
                if i >= 0
            ]
            for values, where, own in zip(rows, positions.tolist(), largest.tolist(), strict=True)
        ]

    @staticmethod
    def positions_many(contributions: Numbers) -> npt.NDArray[np.int64]:
        """For many loans (n, features): the positions (n, ≤ 4) of their reasons, −1 for none."""
        order = np.argsort(-contributions, axis=1, kind="stable")[:, :MAX_REASONS]
        raises = np.take_along_axis(contributions, order, axis=1) > 0
        return np.where(raises, order, -1)


def _sentence_maker(
    field: Field, texts: Texts, usual: Value, points: Callable[[Value], float] | None
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
    return lru_cache(maxsize=_SENTENCES_KEPT)(made)
