"""Compare two definitions: changes that break API clients, and whether both read loans alike."""

from __future__ import annotations

import math

from peerloan.loan.definition import Definition, Field
from peerloan.loan.spelling import Spelling, plain


def breaking_changes(old: Definition, new: Definition) -> list[str]:
    """List the reasons why a request that is valid under `old` could fail under `new`."""
    reasons = []
    for field in new.fields:
        if field.name not in old.names:
            if not field.missing:
                reasons.append(f"{field.name}: is new and required")
            elif field.name in old.roles.columns():
                reasons.append(f"{field.name}: had a role (such as id) and becomes a field")
            continue
        old_field = old[field.name]
        if old_field.kind != field.kind and (old_field.kind, field.kind) not in (
            ("whole", "number"),
            ("ordered", "category"),
        ):
            reasons.append(f"{field.name}: kind changes from {old_field.kind} to {field.kind}")
            continue
        if old_field.missing and not field.missing:
            reasons.append(f"{field.name}: may no longer be missing")
        if field.kind == "ordered":
            new_levels = set(map(plain, field.levels))
            dropped = [level for level in old_field.levels if plain(level) not in new_levels]
            if dropped:
                reasons.append(f"{field.name}: drops the level {', '.join(map(repr, dropped))}")
        if field.is_number and _is_narrower(old_field, field):
            reasons.append(
                f"{field.name}: the range narrows from{old_field.range_text or ' any'}"
                f" to{field.range_text}".replace("from,", "from").replace("to,", "to")
            )
    return reasons


def read_alike(first: Definition, second: Definition) -> bool:
    """Whether two definitions accept the same loans and read the same values from them."""
    return (
        first.names == second.names
        and first.roles == second.roles
        and all(map(_same_values, first.fields, second.fields))
    )


def _same_values(first: Field, second: Field) -> bool:
    ordered = first.kind == "ordered"
    return (
        (first.kind, first.missing, first.min, first.above, first.max)
        == (second.kind, second.missing, second.min, second.above, second.max)
        and (not ordered or first.levels == second.levels)
        and (first.is_number or Spelling.of(first) == Spelling.of(second))
    )


def _is_narrower(old: Field, new: Field) -> bool:
    def low(field: Field) -> tuple[float, bool]:
        """The effective lower bound, and whether it is exclusive."""
        bounds = [(-math.inf, False)]
        if field.min is not None:
            bounds.append((field.min, False))
        if field.above is not None:
            bounds.append((field.above, True))
        return max(bounds)

    def high(field: Field) -> float:
        return math.inf if field.max is None else field.max

    return low(new) > low(old) or high(new) < high(old)
