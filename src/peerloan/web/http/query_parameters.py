"""A request's query parameters; all faults are reported in one answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import request

from peerloan.formatting import show_value
from peerloan.loan import Problem
from peerloan.loan.text import TEXT_EXPECTED, text_fault
from peerloan.web.http.problems import RequestError, sentence

_WHOLE = re.compile(r"[0-9]{1,6}")


class QueryParameters:
    """The query parameters of this request; an invalid one has the value None."""

    def __init__(self, names: Sequence[str]) -> None:
        self._wrong: list[Problem] = []
        self._given: dict[str, str] = {}
        for name, values in request.args.to_dict(flat=False).items():
            if name not in names:
                self._refuse(name, f"one of the parameters {', '.join(names)}", values[-1])
            elif len(values) > 1:
                self._refuse(name, "one value", " and ".join(values[:3]))
            else:
                self._given[name] = values[0]

    def value(self, name: str) -> str | None:
        """Return the parameter as it was sent."""
        return self._given.get(name)

    def text(self, name: str) -> str | None:
        """Return a parameter with any text."""
        value = self.value(name)
        if value is not None and text_fault(value):
            self.refuse(name, TEXT_EXPECTED)
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return a parameter with one of some words."""
        value = self.value(name)
        if value is not None and value not in choices:
            self.refuse(name, f"one of {', '.join(choices)}")
        return value

    def limit(self, usual: int, most: int) -> int:
        """Return the requested page size."""
        value = self.value("limit")
        if value is None:
            return usual
        found = int(value) if _WHOLE.fullmatch(value) else 0
        if not 1 <= found <= most:
            self.refuse("limit", f"a whole number from 1 to {most:,}")
        return found

    def refuse(self, name: str, expected: str) -> None:
        """Record that a parameter is invalid."""
        self._refuse(name, expected, self._given[name])

    def check(self) -> None:
        """Raise RequestError that names each invalid parameter, if any."""
        if self._wrong:
            raise RequestError(400, "Wrong Parameters", sentence(self._wrong), self._wrong)

    def _refuse(self, name: str, expected: str, given: str) -> None:
        self._wrong.append(Problem(None, f"?{name[:50]}", expected, show_value(given)))


def refuse_parameters() -> None:
    """Raise RequestError if the address has query parameters."""
    if request.args:
        detail = f"expected no parameters, given {show_value(next(iter(request.args)))}"
        raise RequestError(400, "Wrong Parameters", detail)
