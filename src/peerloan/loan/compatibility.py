"""What a change of definition means for those who send loans."""

from __future__ import annotations

import math

from peerloan.loan.definition import Definition, Field
from peerloan.loan.spelling import Spelling, plain


def breaking_changes(old: Definition, new: Definition) -> list[str]:
    """Why a request that is valid under `old` could fail under `new`; empty if none could."""
    reasons = []
    for field in new.fields:
        if field.name not in old.names:
            if not field.missing:
                reasons.append(f"{field.name}: is new and required")
            elif field.name in old.roles.columns():
                reasons.append(f"{field.name}: was a role's column, and becomes a field")
            continue
        before = old[field.name]
        if before.kind != field.kind and (before.kind, field.kind) not in (
            ("whole", "number"),
            ("ordered", "category"),
        ):
            reasons.append(f"{field.name}: kind changes from {before.kind} to {field.kind}")
            continue
        if before.missing and not field.missing:
            reasons.append(f"{field.name}: may no longer be missing")
        if field.kind == "ordered":
            kept = set(map(plain, field.levels))
            dropped = [level for level in before.levels if plain(level) not in kept]
            if dropped:
                reasons.append(f"{field.name}: drops the level {', '.join(map(repr, dropped))}")
        if field.is_number and _narrower(before, field):
            reasons.append(
                f"{field.name}: the range narrows from{before.range_text or ' any'}"
                f" to{field.range_text}".replace("from,", "from").replace("to,", "to")
            )
    return reasons


def read_alike(one: Definition, other: Definition) -> bool:
    """Whether two definitions find the same values in every loan, and refuse the same loans."""
    return (
        one.names == other.names
        and one.roles == other.roles
        and all(map(_same_values, one.fields, other.fields))
    )


def _same_values(one: Field, other: Field) -> bool:
    ordered = one.kind == "ordered"
    return (
        (one.kind, one.missing, one.min, one.above, one.max)
        == (other.kind, other.missing, other.min, other.above, other.max)
        and (not ordered or one.levels == other.levels)
        and (one.is_number or Spelling.of(one) == Spelling.of(other))
    )


def _narrower(old: Field, new: Field) -> bool:
    def low(field: Field) -> tuple[float, bool]:
        """Lower bound, and whether it is itself excluded; of two bounds the one that binds."""
        bounds = [(-math.inf, False)]
        if field.min is not None:
            bounds.append((field.min, False))
        if field.above is not None:
            bounds.append((field.above, True))
        return max(bounds)

    def high(field: Field) -> float:
        return math.inf if field.max is None else field.max

    return low(new) > low(old) or high(new) < high(old)
