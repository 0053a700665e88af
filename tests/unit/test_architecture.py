"""The drawings of docs/architecture.md match the import contracts and the packages."""

from __future__ import annotations

import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT

PACKAGE = ROOT / "src/peerloan"
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")

Layers = list[set[str]]


def drawings() -> list[Layers]:
    """The layers of each Mermaid drawing, top to bottom; a line is one layer above the next."""
    return [layers_of(block) for block in re.findall(r"```mermaid\n(.*?)```", PAGE, re.S)]


def layers_of(block: str) -> Layers:
    kind, *lines = block.strip().splitlines()
    assert kind == "flowchart TB"
    edges = [tuple(names_in(side) for side in line.split("-->")) for line in lines]
    for (_, lower), (upper, _) in pairwise(edges):
        assert lower == upper, "each line has to begin with the layer at the end of the line before"
    return [edges[0][0], *(lower for _, lower in edges)]


def names_in(text: str) -> set[str]:
    return {name.strip() for name in text.split("&")}


def contracts() -> list[dict[str, Any]]:
    """The contracts of layers in pyproject.toml: of the whole package, and of the web process."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    all_contracts = settings["tool"]["importlinter"]["contracts"]
    return [contract for contract in all_contracts if contract["type"] == "layers"]


def layers_in(contract: dict[str, Any]) -> Layers:
    return [
        {name.strip().removeprefix("peerloan.") for name in re.split("[|:]", layer)}
        for layer in contract["layers"]
    ]


def modules_in(folder: Path) -> set[str]:
    """The packages and modules of a folder, without `__init__` and `__main__`."""
    names = {path.stem for path in folder.glob("*.py")}
    names |= {path.parent.name for path in folder.glob("*/__init__.py")}
    return names - {"__init__", "__main__"}


def test_the_drawings_are_the_import_contracts() -> None:
    assert drawings() == [layers_in(contract) for contract in contracts()]


@pytest.mark.parametrize(("number", "folder"), [(0, PACKAGE), (1, PACKAGE / "web")])
def test_the_drawings_have_every_package_and_module(number: int, folder: Path) -> None:
    assert set().union(*drawings()[number]) == modules_in(folder)


def test_a_drawing_that_differs_is_noticed() -> None:
    swapped = layers_of("flowchart TB\n    service --> cli\n    cli --> web & worker\n")
    assert swapped == [{"service"}, {"cli"}, {"web", "worker"}]
    with pytest.raises(AssertionError, match="line before"):
        layers_of("flowchart TB\n    cli --> web\n    worker --> loan\n")


def test_the_table_of_rooms_has_every_package_in_the_order_of_the_drawing() -> None:
    table = PAGE.split("| room | what it holds | libraries |")[1].split("\n\n")[0]
    rooms = re.findall(r"^\| `(\w+)` \|", table, re.M)
    *layers, _ = drawings()[0]
    expected = [layer for layer in layers for _ in layer]
    assert len(rooms) == len(expected)
    assert all(room in layer for room, layer in zip(rooms, expected, strict=True)), rooms


def test_every_module_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)+(?:\w+\.(?:py|toml))?|\w+\.py)`", PAGE)
    assert len(named) > 80
    for name in named:
        places = [PACKAGE / name, ROOT / name]
        if "/" not in name:  # its folder is named elsewhere on the line
            places += PACKAGE.rglob(name)
        assert any(place.exists() for place in places), name
