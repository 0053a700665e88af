"""Every exception of the package derives from PeerLoanError and is in its documented tree."""

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
    kinds = [
        kind
        for name in NAMES
        for _, kind in inspect.getmembers(import_module(name), inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == name
    ]
    assert len(kinds) > 35
    return kinds


def documented() -> dict[str, str]:
    """The exceptions of the tree in `errors.py`, each with the name of its base."""
    branch_bases: list[str] = ["PeerLoanError"]
    bases: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if branch := re.match(r"([│ ]*[├└]── )(\w+(?:, \w+)*)(?=  |$)", line):
            depth = len(branch[1]) // 4
            names = branch[2].split(", ")
            bases |= dict.fromkeys(names, branch_bases[depth - 1])
            branch_bases[depth:] = names
    return bases


def test_every_exception_derives_from_the_root() -> None:
    others = [kind for kind in exceptions() if not issubclass(kind, errors.PeerLoanError)]
    assert not others


def test_the_documented_tree_has_every_exception_below_its_base() -> None:
    bases = {
        kind.__name__: kind.__bases__[0].__name__
        for kind in exceptions()
        if kind is not errors.PeerLoanError
    }
    assert documented() == bases
