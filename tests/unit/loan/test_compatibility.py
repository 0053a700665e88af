"""Whether two definitions read the same values from every loan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from peerloan.loan import Definition, Field, Label, ReasonTemplates, Roles, read_alike

DEFINITION = Definition(
    "m",
    Label("y", 1, 0),
    (
        Field("income", "number", "Income", min=0.0, seen=(1.0, 9.0)),
        Field("channel", "category", "Channel", levels=("web", "shop"), seen=("web", "shop")),
        Field("rank", "ordered", "Rank", levels=("low", "high")),
    ),
)


def changed(position: int, **values: Any) -> Definition:
    fields = list(DEFINITION.fields)
    fields[position] = msgspec.structs.replace(fields[position], **values)
    return msgspec.structs.replace(DEFINITION, fields=tuple(fields))


@pytest.mark.parametrize(
    "other",
    [
        DEFINITION,
        msgspec.structs.replace(DEFINITION, texts=ReasonTemplates(missing="None.")),
        changed(0, label="Earnings", seen=(2.0, 100.0), default=5.0),
        changed(1, levels=("shop", "web"), seen=("shop", "web")),
    ],
)
def test_labels_and_seen_values_do_not_matter(other: Definition) -> None:
    assert read_alike(DEFINITION, other)
    assert read_alike(other, DEFINITION)


@pytest.mark.parametrize(
    "other",
    [
        msgspec.structs.replace(DEFINITION, roles=Roles(id="number")),
        msgspec.structs.replace(DEFINITION, fields=DEFINITION.fields[:2]),
        msgspec.structs.replace(DEFINITION, fields=DEFINITION.fields[::-1]),
        changed(0, name="earnings"),
        changed(0, kind="whole"),
        changed(0, min=1.0),
        changed(0, above=0.0),
        changed(0, max=10.0),
        changed(0, missing=True),
        # It reads the plain text `true` as the level `True`, which the other leaves as it is.
        changed(1, seen=("web", "True")),
        changed(2, levels=("low", "high", "higher")),
    ],
)
def test_changes_of_values_or_limits_matter(other: Definition) -> None:
    assert not read_alike(DEFINITION, other)
    assert not read_alike(other, DEFINITION)
