"""Every exception of the package has one root, and stands in its tree."""

from __future__ import annotations

import inspect
import pkgutil
import re
from importlib import import_module

import peerloan
from peerloan import errors

NAMES = [
    module.name
    for module in pkgutil.walk_packages(peerloan.__path__, "peerloan.")
    if not module.name.endswith(".__main__") and ".migrations." not in module.name
]


def exceptions() -> list[type[Exception]]:
    """The exceptions that the package defines."""
    found = [
        kind
        for name in NAMES
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == name
    ]
    assert len(found) > 35
    return found


def drawn() -> dict[str, str]:
    """The exceptions of the tree, each with the name of the one that it hangs from."""
    above: list[str] = ["PeerLoanError"]
    found: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if branch := re.match(r"([│ ]*[├└]── )(\w+(?:, \w+)*)(?=  |$)", line):
            depth = len(branch[1]) // 4
            names = branch[2].split(", ")
            found |= dict.fromkeys(names, above[depth - 1])
            above[depth:] = names
    return found


def test_every_exception_has_the_one_root() -> None:
    strangers = [kind for kind in exceptions() if not issubclass(kind, errors.PeerLoanError)]
    assert not strangers


def test_the_tree_names_every_exception_below_its_base() -> None:
    bases = {
        kind.__name__: kind.__bases__[0].__name__
        for kind in exceptions()
        if kind is not errors.PeerLoanError
    }
    assert drawn() == bases
