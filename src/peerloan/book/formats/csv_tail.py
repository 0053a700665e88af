"""The rows at the end of a CSV file that hold nothing but commas, as spreadsheets leave them."""

from __future__ import annotations

from typing import IO, NamedTuple

_BLOCK = 1 << 18
_NOTHING = b",\r\n"


class Tail(NamedTuple):
    """The place behind the last line that holds anything, and the rows without a value after it."""

    start: int
    rows: int


def find_tail(stream: IO[bytes], size: int | None, after: int) -> Tail | None:
    """The rows at the end of a text that hold commas alone; None if there are none.

    `size` is the text's size if the stream can be read backwards; else all of it is read. `after`
    is where the rows begin. A quotation mark is more than a comma, so none of these rows can lie
    within a quoted value that is closed.
    """
    solid, comma = _forwards(stream) if size is None else _backwards(stream, size)
    if not comma:
        return None
    solid = max(solid, after)
    stream.seek(solid)
    if solid > after:
        # What follows the last byte of a line belongs to it.
        while (line := stream.read(1)) and line not in b"\r\n":
            solid += 1
        solid += 1
    start, rows, before = solid, 0, b"\n"
    while block := stream.read(_BLOCK):
        text = before + block
        rows += text.count(b"\n,") + text.count(b"\r,")
        before = text[-1:]
    return Tail(start, rows) if rows else None


def _forwards(stream: IO[bytes]) -> tuple[int, bool]:
    """The place behind the last byte that is neither a comma nor a line's end, and whether a comma
    follows.
    """
    solid = position = 0
    comma = False
    stream.seek(0)
    while block := stream.read(_BLOCK):
        if kept := len(block.rstrip(_NOTHING)):
            solid, comma = position + kept, False
        comma |= b"," in block[kept:]
        position += len(block)
    return solid, comma


def _backwards(stream: IO[bytes], size: int) -> tuple[int, bool]:
    """The same, from the end of a text of this size."""
    end, comma = size, False
    while end:
        start = max(0, end - _BLOCK)
        stream.seek(start)
        block = stream.read(end - start)
        kept = len(block.rstrip(_NOTHING))
        comma |= b"," in block[kept:]
        if kept:
            return start + kept, comma
        end = start
    return 0, comma
