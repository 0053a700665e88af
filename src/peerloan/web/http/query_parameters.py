"""Parses a request's query parameters, and reports all invalid ones in one response."""

from __future__ import annotations

import re
from collections.abc import Sequence

from flask import request

from peerloan.formatting import show_value
from peerloan.loan import Problem
from peerloan.loan.text import TEXT_EXPECTED, text_fault
from peerloan.web.http.problems import RequestError, sentence

_WHOLE_NUMBER = re.compile(r"[0-9]{1,6}")


class QueryParameters:
    """The query parameters of the current request.

    Get each parameter by a method, then call `check`, which raises if any parameter was invalid.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._problems: list[Problem] = []
        self._values: dict[str, str] = {}
        for name, values in request.args.to_dict(flat=False).items():
            if name not in names:
                self._add_problem(name, f"one of the parameters {', '.join(names)}", values[-1])
            elif len(values) > 1:
                self._add_problem(name, "one value", " and ".join(values[:3]))
            else:
                self._values[name] = values[0]

    def value(self, name: str) -> str | None:
        """Return the value of a parameter as it was sent; None if it was not sent."""
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """Return a parameter whose value is any valid text; None if it was not sent."""
        value = self.value(name)
        if value is not None and text_fault(value):
            self.refuse(name, TEXT_EXPECTED)
        return value

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return a parameter whose value must be one of `choices`; None if it was not sent."""
        value = self.value(name)
        if value is not None and value not in choices:
            self.refuse(name, f"one of {', '.join(choices)}")
        return value

    def limit(self, default: int, maximum: int) -> int:
        """Return the page size, which is the parameter `limit`."""
        value = self.value("limit")
        if value is None:
            return default
        size = int(value) if _WHOLE_NUMBER.fullmatch(value) else 0
        if not 1 <= size <= maximum:
            self.refuse("limit", f"a whole number from 1 to {maximum:,}")
        return size

    def refuse(self, name: str, expected: str) -> None:
        """Record that the value of a parameter is invalid, and what was expected."""
        self._add_problem(name, expected, self._values[name])

    def check(self) -> None:
        """Raise RequestError that names each invalid parameter, if any."""
        if self._problems:
            raise RequestError(400, "Wrong Parameters", sentence(self._problems), self._problems)

    def _add_problem(self, name: str, expected: str, given: str) -> None:
        self._problems.append(Problem(None, f"?{name[:50]}", expected, show_value(given)))


def refuse_parameters() -> None:
    """Raise RequestError 400 if the request has query parameters."""
    if request.args:
        detail = f"expected no query parameters, given {show_value(next(iter(request.args)))}"
        raise RequestError(400, "Wrong Parameters", detail)
