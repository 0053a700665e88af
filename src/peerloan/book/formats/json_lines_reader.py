"""Read a JSON lines file, gzipped or not: one object a line, each a row."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa

from peerloan.book.formats.foreign_files import expect_text
from peerloan.book.formats.json_columns import Kinds, kinds_of, make_column, type_of
from peerloan.book.formats.text_stream import open_stream
from peerloan.book.parts import (
    MOST_COLUMNS,
    BookError,
    EmptyFileError,
    Part,
    is_mostly_broken,
    show_path,
)
from peerloan.errors import PeerLoanError
from peerloan.loan import Problem
from peerloan.loan.spelling import FIRST_INEXACT

ENDINGS = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_EXPECTED = "a JSON object with each key once"
# Longest line in bytes. Parts have fewer rows than in other formats: each row is a dict.
_LONGEST = 1 << 22
_PART_ROWS = 16_384
_HEAD = 1 << 12
PART_BYTES = 1 << 24
# Limit of cells (rows × columns) in a part: a row has a cell even for a key that it lacks.
_PART_CELLS = 1 << 22


class _Chunk(NamedTuple):
    """A run of lines: rows with their numbers, wrong lines as (number, reason), and the file offset
    behind them.
    """

    rows: list[dict[str, Any]]
    numbers: list[int]
    wrong: list[tuple[int, str]]
    position: int


class WrongLineError(PeerLoanError, ValueError):
    """A line that is not a row; the message describes what it is instead."""


class JsonLinesFile:
    """A JSON lines file.

    Opening reads it once, since any row may have new keys or other types of values. A column has
    the common type of its values, or else is text, each value as in CSV. A key that a row lacks is
    missing there.
    """

    format = "JSON lines"
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_stream(path) as (stream, _):
            expect_text(stream.read(_HEAD), show_path(path))
        kinds: dict[str, Kinds] = {}
        wrong: list[tuple[int, str]] = []
        self.has_rows = False
        for chunk in self._chunks(_PART_ROWS):
            self.has_rows = True
            wrong = wrong or chunk.wrong
            self._add_kinds(kinds, chunk.rows)
        if not self.has_rows:
            raise EmptyFileError(f"{show_path(path)}: expected a table of loans, got an empty file")
        if not kinds:
            number, reason = wrong[0] if wrong else (1, "an object without a key")
            raise BookError(
                f"{show_path(path)}: row {number}: expected {_EXPECTED}, got {reason}; all other "
                "rows are wrong too"
            )
        self._types = {key: type_of(key_kinds) for key, key_kinds in kinds.items()}
        self._mixed = [
            key for key, key_kinds in kinds.items() if "nested" in key_kinds and len(key_kinds) > 1
        ]
        self.schema = pa.schema(list(self._types.items()))

    def add_columns(self, names: list[str]) -> None:
        """Add the columns of other files; an added column is missing in every row."""
        self._types |= {name: pa.null() for name in names if name not in self._types}
        self.schema = pa.schema(list(self._types.items()))

    def first_lines(self) -> list[tuple[int, str]]:
        """Empty: the file has no header."""
        return []

    def parts(self, first: int, at_byte: Callable[[int], None]) -> Iterator[Part]:
        """Read the rows; see `TableFile.parts`."""
        most_rows = min(_PART_ROWS, max(1, _PART_CELLS // len(self._types)))
        for chunk in self._chunks(most_rows):
            rows, numbers, wrong = chunk.rows, chunk.numbers, chunk.wrong
            for key in self._mixed:
                rows, numbers, wrong = _without_nested(key, rows, numbers, wrong)
            try:
                columns = [
                    make_column([row.get(key) for row in rows], kind)
                    for key, kind in self._types.items()
                ]
            except pa.ArrowException:
                raise BookError(f"{show_path(self.path)}: was changed while it was read") from None
            yield Part(
                pa.RecordBatch.from_arrays(columns, schema=self.schema),
                np.array(numbers, dtype=np.int64) + (first - 1),
                [Problem(n + first - 1, "(row)", _EXPECTED, reason) for n, reason in sorted(wrong)],
            )
            at_byte(chunk.position)

    def _add_kinds(self, kinds: dict[str, Kinds], rows: list[dict[str, Any]]) -> None:
        columns: defaultdict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for key, value in row.items():
                columns[key].append(value)
        for key, values in columns.items():
            kinds.setdefault(key, set()).update(kinds_of(values))
        if len(kinds) > MOST_COLUMNS:
            raise BookError(
                f"{show_path(self.path)}: expected at most {MOST_COLUMNS:,} different keys, got "
                "more: a key is a column's name, not a value"
            )

    def _chunks(self, most_rows: int) -> Iterator[_Chunk]:
        rows: list[dict[str, Any]] = []
        numbers: list[int] = []
        wrong: list[tuple[int, str]] = []
        number = size = broken = 0
        with open_stream(self.path) as (stream, raw):
            while line := stream.readline(_LONGEST + 1):
                if len(line) > _LONGEST:
                    raise BookError(
                        f"{show_path(self.path)}: expected rows of at most {_LONGEST >> 20} MB, "
                        f"got a longer one after row {number}"
                    )
                if not number:
                    line = line.removeprefix(_BOM)
                if not line.strip(_SPACE):
                    continue
                number += 1
                size += len(line)
                try:
                    rows.append(read_line(line))
                    numbers.append(number)
                except WrongLineError as error:
                    wrong.append((number, str(error)))
                    broken += 1
                    if is_mostly_broken(broken, number):
                        raise BookError(
                            f"{show_path(self.path)}: expected {_EXPECTED} a line, got none in "
                            f"{broken:,} of the first {number:,} rows, such as {error} in row "
                            f"{number}"
                        ) from None
                if len(rows) + len(wrong) == most_rows or size >= PART_BYTES:
                    yield _Chunk(rows, numbers, wrong, raw.tell())
                    rows, numbers, wrong, size = [], [], [], 0
            if rows or wrong:
                yield _Chunk(rows, numbers, wrong, raw.tell())


def read_line(line: bytes) -> dict[str, Any]:
    """Parse a line's JSON object; raises WrongLineError."""
    try:
        text = line.rstrip(_SPACE).decode("utf-8")
        value = _DECODER.decode(text)
        if "\\u" in text:
            # An escaped lone surrogate parses, but is not a character: encoding raises.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise WrongLineError(f"no JSON at character {error.pos + 1}") from None
    except UnicodeError:
        raise WrongLineError("text that is not UTF-8") from None
    except RecursionError:
        raise WrongLineError("values nested too deep") from None
    except WrongLineError:
        raise
    except ValueError:
        raise WrongLineError("a number of thousands of digits") from None
    if not isinstance(value, dict):
        raise WrongLineError(_name(value))
    return value


def is_json_lines(stream: IO[bytes]) -> bool:
    """Whether the first non-blank line is a JSON object, or the start of a very long one."""
    head = stream.read(_HEAD)
    while head and not head.removeprefix(_BOM).strip(_SPACE) and (more := stream.read(_HEAD)):
        head = more
    first = head.removeprefix(_BOM).lstrip(_SPACE)
    if not first.startswith(b"{"):
        return False
    if b"\n" not in first:
        first += stream.readline(_LONGEST)
    try:
        read_line(first.split(b"\n", 1)[0])
    except WrongLineError:
        return len(first) > _LONGEST
    return True


def _without_nested(
    key: str, rows: list[dict[str, Any]], numbers: list[int], wrong: list[tuple[int, str]]
) -> tuple[list[dict[str, Any]], list[int], list[tuple[int, str]]]:
    """Move rows that have an object or array where others have a plain value to the wrong ones."""
    nested = [isinstance(row.get(key), dict | list) for row in rows]
    if not any(nested):
        return rows, numbers, wrong
    plain = [not is_nested for is_nested in nested]
    reasons = [
        (number, f"{_name(row[key])} in {key}, where other rows have a plain value")
        for row, number in itertools.compress(zip(rows, numbers, strict=True), nested)
    ]
    return (
        list(itertools.compress(rows, plain)),
        list(itertools.compress(numbers, plain)),
        [*wrong, *reasons],
    )


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise WrongLineError(f"more than one {json.dumps(key)}")
            seen.add(key)
    return row


def _number(text: str) -> float:
    """Parse a number with a point or exponent; a large whole number like 9007199254740993.0 keeps
    its digits, as in CSV.
    """
    number = float(text)
    if abs(number) < FIRST_INEXACT:
        return number
    digits, _, fraction = text.partition(".")
    return int(digits) if fraction and not fraction.strip("0") else number


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number)


def _name(value: object) -> str:
    """Describe a JSON value for an error message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else f"the value {json.dumps(value)[:60]} alone"
