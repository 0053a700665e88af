"""The loan definition: fields (kind, unit, range, levels), label, roles and texts of reasons.

A definition is immutable data. It is read from TOML (`peerloan.loan.toml`) and stored in every
bundle as `loan.json` (`question` and `changeable` as `extras.json`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Literal

import msgspec

from peerloan.errors import PeerLoanError
from peerloan.formatting import format_exact, format_number, has_control
from peerloan.loan.reason_templates import ReasonTemplates
from peerloan.loan.text import TEXT_EXPECTED, parse_number, text_fault

Kind = Literal["number", "whole", "category", "ordered"]
Value = float | str | None

# Keys of API answers. A field of such a name would be ambiguous in an answer, a scored book and the
# ledger.
RESERVED = frozenset(
    [
        "id",
        "loan_id",
        "probability",
        "late",
        "threshold",
        "band",
        "reasons",
        "reason_1",
        "reason_2",
        "reason_3",
        "reason_4",
        "model",
        "model_version",
        "warnings",
        "base",
        "contributions",
        "margin",
        "what_if",
    ]
)
PLACEHOLDERS = ("{label}", "{value}", "{usual}", "{more}", "{less}")
_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))


class DefinitionError(PeerLoanError, ValueError):
    """A loan definition that can't be used; the message has the place (file, line, key)."""

    def __init__(self, reason: str, path: tuple[str | int, ...] = (), where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.path = path


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The label: the column with the loan's outcome, and its two values."""

    column: str
    late: int | float | str | bool
    on_time: int | float | str | bool


class Roles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Columns with a special meaning, and the days after a decision whose payments count.

    `id`, `date` and `exposure` are names of columns. `horizon` is the first and the last day.
    """

    id: str | None = None
    date: str | None = None
    exposure: str | None = None
    horizon: tuple[int, int] = (1, 184)

    def columns(self) -> tuple[str, ...]:
        """The names of the role columns that are set."""
        return tuple(name for name in (self.id, self.date, self.exposure) if name is not None)


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feature of a loan.

    `min` and `max` are inclusive, `above` is an exclusive lower bound, all in the field's unit.
    `seen` is what the training table contains: (lowest, highest) of a number, the levels of a
    category. `percent` marks a fraction that is shown as a percentage. `riskier` is the end of a
    number or of ordered levels that has the higher risk. `more` and `less` are the words that
    compare two values ("higher", "lower"). `changeable` is whether borrowers can change the value
    by themselves.
    """

    name: str
    kind: Kind
    label: str
    help: str = ""
    unit: str = ""
    min: float | None = None
    above: float | None = None
    max: float | None = None
    percent: bool = False
    levels: tuple[str, ...] = ()
    missing: bool = False
    riskier: Literal["higher", "lower"] | None = None
    more: str = "higher"
    less: str = "lower"
    default: float | str | None = None
    seen: tuple[float | str, ...] | None = None
    changeable: bool = True

    @property
    def is_number(self) -> bool:
        """Whether values are numbers (else text)."""
        return self.kind in ("number", "whole")

    @property
    def seen_range(self) -> tuple[float, float] | None:
        """Lowest and highest value of a number in the training table, if known."""
        if self.is_number and self.seen is not None:
            return float(self.seen[0]), float(self.seen[1])
        return None

    @property
    def seen_range_rounded(self) -> tuple[float, float] | None:
        """The seen range, widened by a tolerance for rounding errors.

        So the value 0.053099999999999994 is not below 0.0531. Used for doubts about a book; the
        warning about a single loan uses the exact range.
        """
        if (seen := self.seen_range) is None:
            return None
        slack = 1e-9 * max(map(abs, seen))
        return seen[0] - slack, seen[1] + slack

    @property
    def seen_levels(self) -> tuple[str, ...]:
        """The levels of a category in the training table; the listed levels before training."""
        return self.levels if self.seen is None else tuple(str(level) for level in self.seen)

    def within(self, value: float) -> bool:
        """Whether a finite number lies in the allowed range."""
        return (
            (self.min is None or value >= self.min)
            and (self.above is None or value > self.above)
            and (self.max is None or value <= self.max)
        )

    def show(self, value: Value) -> str:
        """Format a value for people, with its unit."""
        if value is None:
            return "not given"
        if isinstance(value, str):
            return value
        if self.percent:
            return f"{format_number(value * 100)} % {self.unit}".rstrip()
        return f"{format_number(value)} {self.unit}".rstrip()

    @property
    def expected(self) -> str:
        """Describe valid values: the `expected` of an error."""
        missing = ", or nothing" if self.missing else ""
        if self.kind == "category":
            return f"{TEXT_EXPECTED}{missing}"
        if self.kind == "ordered":
            return f"one of {', '.join(repr(level) for level in self.levels)}{missing}"
        noun = "a whole number" if self.kind == "whole" else "a number"
        if self.percent:
            noun = f"a fraction {self.unit}".rstrip()
        elif self.unit:
            noun += f" ({self.unit})"
        hint = ": 0.1306 for 13.06 %" if self.percent else ""
        return f"{noun}{self.range_text}{hint}{missing}"

    @property
    def range_text(self) -> str:
        """Describe the allowed range, with a leading comma; empty if there is none."""
        low = ""
        if self.above is not None and (self.min is None or self.above >= self.min):
            low = f"above {format_exact(self.above)}"
        elif self.min is not None:
            low = f"at least {format_exact(self.min)}"
        high = f"at most {format_exact(self.max)}" if self.max is not None else ""
        return "".join(f", {bound}" for bound in (low, high) if bound)


class Definition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """A loan definition: the model's name, the label, the roles, the fields and the texts.

    Roles and texts are stored even if they are the defaults. A later release may have other
    defaults, and must still give the same reasons for an old version's decisions. `question` is the
    yes/no question that the label answers.
    """

    model: str
    label: Label
    fields: tuple[Field, ...] = msgspec.field(name="field")
    roles: Roles = Roles()
    texts: ReasonTemplates = ReasonTemplates()
    question: str | None = None

    def __post_init__(self) -> None:
        for path, reason in _faults(self):
            raise DefinitionError(reason, path)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The fields' names, in order."""
        return tuple(field.name for field in self.fields)

    @property
    def question_text(self) -> str:
        """The question that a decision answers; a neutral one if the definition has none."""
        return self.question or "Late?"

    def __getitem__(self, name: str) -> Field:
        return self.fields[self.names.index(name)]


def _faults(definition: Definition) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield every fault that the types don't catch, as (path, reason), in the file's order."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", definition.model):
        expected = "expected lower-case letters, digits and hyphens (at most 64)"
        yield ("model",), f"{expected}, got {definition.model!r}"
    question = definition.question
    if question is not None and (fault := text_fault(question if question.strip() else "")):
        yield ("question",), fault
    label, roles = definition.label, definition.roles
    if fault := text_fault(label.column) or reserved_fault(label.column):
        yield ("label", "column"), fault
    for key in ("late", "on_time"):
        value = getattr(label, key)
        # JSON parsers may change numbers of more than 64 bits.
        if not isinstance(value, str) and not abs(value) < 2**63:
            expected = "expected text, true or false, or a finite number below 2^63"
            yield ("label", key), expected
        if isinstance(value, str) and (fault := text_fault(value)):
            yield ("label", key), fault
    # Values that are the same text in a CSV book can't be distinguished.
    if label.late == label.on_time or _as_text(label.late) == _as_text(label.on_time):
        yield ("label", "on_time"), f"expected another value than late's, got {label.on_time!r}"
    if not 0 <= roles.horizon[0] <= roles.horizon[1]:
        yield ("roles", "horizon"), f"expected [first, last] day, got {list(roles.horizon)}"
    for role in ("id", "date", "exposure"):
        if (column := getattr(roles, role)) is not None and column == label.column:
            yield ("roles", role), f"{column!r} is the label's column"
        # The id column may be named loan_id, as in an answer.
        free = role == "id" and column == "loan_id"
        if (
            column is not None
            and not free
            and (fault := text_fault(column) or reserved_fault(column))
        ):
            yield ("roles", role), fault
        if role != "id" and column is not None and column == roles.id:
            yield ("roles", role), f"{column!r} is the id's column"
        if role == "exposure" and column is not None:
            if column == roles.date:
                yield ("roles", role), f"{column!r} is the date's column"
            if not all(field.is_number for field in definition.fields if field.name == column):
                yield ("roles", role), f"expected a number's column, got {column!r}"
    if not definition.fields:
        yield ("field",), "expected at least one [[field]]"
    names: set[str] = set()
    for i, field in enumerate(definition.fields):
        path = ("field", i)
        if fault := text_fault(field.name) or reserved_fault(field.name):
            yield (*path, "name"), fault
        if field.name in names:
            yield (*path, "name"), f"a second field named {field.name!r}"
        names.add(field.name)
        if field.name == label.column:
            yield (*path, "name"), f"{field.name!r} is the label's column and can't be a feature"
        if field.name in (roles.id, roles.date):
            yield (*path, "name"), f"{field.name!r} is a role's column and can't be a feature"
        for key, reason in _field_faults(field):
            yield (*path, key), reason
    for key in ReasonTemplates.__struct_fields__:
        template: str = getattr(definition.texts, key)
        rest = _PLACEHOLDER.sub("", template)
        if not template.strip() or "{" in rest or "}" in rest:
            yield (
                ("texts", key),
                f"expected a sentence with no placeholder but {', '.join(PLACEHOLDERS)}, "
                f"got {template!r}",
            )


def _as_text(value: float | str | bool) -> str:
    """A label value as text in a table; equal numbers give the same text."""
    text = str(value).casefold()
    try:
        number = parse_number(text)
    except ValueError:
        return text
    return text if number is None else repr(number)


def reserved_fault(name: str) -> str | None:
    """The reason why a column can't have this name; None if it can."""
    if name not in RESERVED:
        return None
    return (
        f"{name!r} is a reserved name, used in answers; rename the column, "
        f"for example to '{name}_given'"
    )


def _field_faults(field: Field) -> Iterator[tuple[str, str]]:
    """Yield the faults of one field, as (key, reason)."""
    for key, noun in (("label", "a label"), ("more", "a word"), ("less", "a word")):
        if not getattr(field, key).strip():
            yield key, f"expected {noun} for people, got an empty one"
    for key in ("label", "help", "unit", "more", "less"):
        if has_control(getattr(field, key)):
            yield key, f"expected text without control characters, got {getattr(field, key)!a}"
    if field.is_number:
        if field.levels:
            yield "levels", f"a {field.kind} has no levels; did you mean kind = 'ordered'?"
        for key in ("min", "above", "max"):
            bound = getattr(field, key)
            if bound is not None and not math.isfinite(bound):
                yield key, f"expected a finite number, got {bound}"
        low = max(b for b in (field.min, field.above, -math.inf) if b is not None)
        if field.max is not None and (field.max < low or field.max == field.above):
            yield "max", f"{field.max} is not above the lower bound {low}"
        if field.seen is not None and (
            len(field.seen) != 2
            or any(isinstance(end, str) or not math.isfinite(end) for end in field.seen)
            or float(field.seen[0]) > float(field.seen[1])
        ):
            yield "seen", f"expected [lowest, highest], got {list(field.seen)}"
        if field.default is not None and (
            isinstance(field.default, str)
            or not math.isfinite(field.default)
            or not field.within(field.default)
            or (field.kind == "whole" and not float(field.default).is_integer())
        ):
            yield "default", f"expected {field.expected}, got {field.default!r}"
        return
    for key in ("min", "above", "max"):
        if getattr(field, key) is not None:
            yield key, f"a {field.kind} field has no range"
    if field.percent:
        yield "percent", f"a {field.kind} field is not a fraction"
    if field.kind == "ordered" and len(field.levels) < 2:
        yield "levels", f"expected at least two levels, lowest first, got {list(field.levels)}"
    if field.kind == "category" and field.riskier is not None:
        yield "riskier", "a category has no order; use kind = 'ordered'"
    for level in field.levels:
        if fault := text_fault(level):
            yield "levels", fault
    if len(set(field.levels)) < len(field.levels):
        yield "levels", f"expected different levels, got a repeated one in {list(field.levels)}"
    if field.seen is not None and not all(isinstance(level, str) for level in field.seen):
        yield "seen", f"expected levels, got {list(field.seen)}"
    if field.default is not None and not isinstance(field.default, str):
        yield "default", f"expected text, got {field.default!r}"
    if isinstance(field.default, str) and (fault := text_fault(field.default)):
        yield "default", fault
    if field.kind == "ordered" and field.default is not None and field.default not in field.levels:
        yield "default", f"expected {field.expected}, got {field.default!r}"
