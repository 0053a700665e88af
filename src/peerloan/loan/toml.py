"""Read a loan definition from TOML; errors name the line and the key."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from peerloan.loan.definition import Definition, DefinitionError
from peerloan.loan.spelling import plain
from peerloan.regular_files import read_regular_file

# A field takes some hundred bytes: enough for tens of thousands of fields.
MAX_DEFINITION_BYTES = 16_000_000

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"""^\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_-]+))\s*=""")

# Words for the types that msgspec names in its messages.
_TYPES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "object": "a table",
    "array": "a list",
}
_ALLOWED = {
    "kind": "one of 'number', 'whole', 'category', 'ordered'",
    "riskier": "'higher' or 'lower'",
}


def read_definition(path: Path) -> Definition:
    """Read a definition from a TOML file; raises DefinitionError."""
    try:
        text = read_regular_file(path, MAX_DEFINITION_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DefinitionError(f"can't be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise DefinitionError("expected UTF-8 text", where=str(path)) from None
    return parse_definition(text, source=str(path))


def parse_definition(text: str, source: str) -> Definition:
    """Parse a definition from TOML text; `source` is its name in errors. Raises DefinitionError."""
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and an int of thousands of digits
        raise DefinitionError(f"not TOML: {error}", where=source) from None
    except RecursionError:
        raise DefinitionError("not TOML: arrays or tables too deep", where=source) from None
    try:
        definition = msgspec.convert(data, Definition)
        _refuse_one_value_twice(definition)
        return definition
    except DefinitionError as error:
        reason, path = error.reason, error.path
    except msgspec.ValidationError as error:
        cause = error.__cause__
        if isinstance(cause, DefinitionError):
            reason, path = cause.reason, cause.path
        else:
            reason, path = _translate(str(error))
    where = f"{source}, line {_line_of(text, path)}"
    if keys := [str(key) for key in path if not isinstance(key, int)]:
        where += f", key {'.'.join(keys)}"
    raise DefinitionError(reason, path, where)


@cache
def default_definition() -> Definition:
    """PeerLoan's own definition, which ships with the package."""
    text = resources.files("peerloan.loan").joinpath("default.toml").read_text("utf-8")
    return parse_definition(text, "loan.toml")


def _refuse_one_value_twice(definition: Definition) -> None:
    """Raise DefinitionError for two levels that are spellings of one value.

    Not checked by `Definition` itself: versions of earlier releases may have been trained on both.
    """
    for i, field in enumerate(definition.fields):
        first_spelling: dict[str, str] = {}
        for level in field.levels:
            first = first_spelling.setdefault(plain(level), level)
            if first != level:
                reason = f"{first!r} and {level!r} are two spellings of one value; keep one"
                raise DefinitionError(reason, ("field", i, "levels"))


def _translate(message: str) -> tuple[str, tuple[str | int, ...]]:
    """Convert a message of msgspec ('… - at `$.field[2].unit`') to (reason, path)."""
    reason, mark, at = message.rpartition(" - at `$")
    if not mark:
        reason, at = message, ""
    path: list[str | int] = [
        int(index) if index else name for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", at)
    ]
    if unknown := re.search(r"unknown field `(.+)`", reason):
        path.append(unknown[1])
        reason = "no such key"
    elif required := re.search(r"missing required field `(.+)`", reason):
        path.append(required[1])
        reason = "this key is missing"
    elif wrong := re.search(r"[Ii]nvalid enum value (.+)", reason):
        allowed = _ALLOWED.get(str(path[-1]), "a listed value")
        reason = f"expected {allowed}, got {wrong[1]}"
    else:
        for word, shown in _TYPES.items():
            reason = re.sub(rf"\b{word}\b", shown, reason)
        reason = reason.replace("`", "").replace(" | ", " or ")
    return reason[0].lower() + reason[1:], tuple(path)


def _line_of(text: str, path: tuple[str | int, ...]) -> int:
    """The line (from 1) of a key; if the key is absent, of its table's header."""
    keys = [key for key in path if not isinstance(key, int)]
    # In ("field", 2, "levels", 0) the 2 is the index of the table; the last 0 is not.
    index = path[1] if len(path) > 1 and isinstance(path[1], int) else 0
    table: list[str] = []
    counts: dict[str, int] = {}
    best = 1
    for number, line in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(line):
            name = header[2].strip("\"'")
            table = [name]
            counts[name] = counts.get(name, -1) + 1
            if keys[:1] == table and counts[name] == index:
                best = number
        elif (key := _KEY.match(line)) and (
            [*table, key[1] or key[2] or key[3]] == keys
            and (not table or counts[table[0]] == index)
        ):
            return number
    return best
