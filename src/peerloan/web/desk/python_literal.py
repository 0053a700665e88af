"""Parse a Python literal as a person, numpy or pandas prints it. Nothing is executed."""

from __future__ import annotations

import ast
import math
import re
from typing import Any

from peerloan.formatting import show_value

# As Python, numpy, pandas and JSON name values that have no literal.
_NAMES = {
    **dict.fromkeys(("nan", "NaN", "NAN", "NA", "NaT"), math.nan),
    **dict.fromkeys(("inf", "Infinity"), math.inf),
    "null": None,
    "true": True,
    "false": False,
}
# More than any double has.
_MAX_BITS = 1_100
_MODULES = ("np", "numpy", "pd", "pandas", "math")
_TYPES = re.compile(r"float\d*|int\d*|uint\d*|longdouble|bool_?|str_?")


def parse_literal(text: str) -> Any:
    """Parse numbers, texts, lists and dictionaries, also `nan`, `np.float64(…)` and `np.str_('…')`.

    Raises ValueError, whose message continues a sentence that ends with "but".
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _value(tree.body)
    except SyntaxError as error:
        where = f"line {error.lineno or 1}, character {error.offset or 1}"
        raise ValueError(f"it can't be read from {where} on") from None
    except UnicodeEncodeError:
        raise ValueError("it has half of a character") from None
    except (RecursionError, MemoryError):
        raise ValueError("it is nested too deep") from None


def _value(node: ast.expr) -> Any:
    """Return the value of a node of the syntax tree."""
    match node:
        case ast.Constant(value=int() as number) if number.bit_length() > _MAX_BITS:
            return math.inf  # as for a JSON number of so many digits
        case ast.Constant(value=None | bool() | int() | float() | str() as value):
            return value
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _value(operand)
            if type(number) in (int, float):
                return -number if isinstance(sign, ast.USub) else number
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(element) for element in elements]
        case ast.Dict(keys=keys, values=values):
            return _dictionary(keys, values)
        case ast.Name() | ast.Attribute() if (name := _bare_name(node)) in _NAMES:
            return _NAMES[name]
        case ast.Call(func=function, args=[argument], keywords=[]) if _TYPES.fullmatch(
            _bare_name(function)
        ):
            return _converted(argument)
    raise ValueError(f"it has {show_value(_source(node))}, which is not a number or a text")


def _converted(argument: ast.expr) -> Any:
    """Return the argument of a type: a number, a text, or `float('nan')`."""
    value = _value(argument)
    if isinstance(value, list | dict):
        raise ValueError(f"it has {show_value(value)} in place of a number or a text")
    return value


def _dictionary(keys: list[ast.expr | None], values: list[ast.expr]) -> dict[Any, Any]:
    dictionary: dict[Any, Any] = {}
    for key_node, value_node in zip(keys, values, strict=True):
        key = None if key_node is None else _value(key_node)
        if not isinstance(key, str | int | float):
            raise ValueError(f"it has {show_value(key)} in place of a name")
        if key in dictionary:
            raise ValueError(f"it has the name {show_value(key)} more than once")
        dictionary[key] = _value(value_node)
    return dictionary


def _bare_name(node: ast.expr) -> str:
    """Return a name, without its module if that is one of numpy, pandas or math."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=module), attr=name) if module in _MODULES:
            return name
    return ""


def _source(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return type(node).__name__
