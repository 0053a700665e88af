"""Find the empty rows at the end of a CSV file: only commas, as spreadsheets leave them."""

from __future__ import annotations

from typing import IO, NamedTuple

_BLOCK = 1 << 18
_NOTHING = b",\r\n"


class Tail(NamedTuple):
    """Where the table ends: the byte offset behind its last row, and the empty rows after it."""

    start: int
    rows: int


def find_tail(stream: IO[bytes], size: int | None, after: int) -> Tail | None:
    """Find the rows at the end of a text that hold only commas; None if there are none.

    `size` is the size of the text if the stream can be read backwards; with None all of it is read.
    `after` is the byte offset of the first row. These rows hold no quotation mark, so they can't
    lie within a quoted value that is closed.
    """
    end, comma = _forwards(stream) if size is None else _backwards(stream, size)
    if not comma:
        return None
    end = max(end, after)
    stream.seek(end)
    if end > after:
        # Move to the end of that line.
        while (line := stream.read(1)) and line not in b"\r\n":
            end += 1
        end += 1
    start, rows, previous_byte = end, 0, b"\n"
    while block := stream.read(_BLOCK):
        text = previous_byte + block
        rows += text.count(b"\n,") + text.count(b"\r,")
        previous_byte = text[-1:]
    return Tail(start, rows) if rows else None


def _forwards(stream: IO[bytes]) -> tuple[int, bool]:
    """The offset behind the last byte but commas and line ends; and whether a comma follows."""
    end = position = 0
    comma = False
    stream.seek(0)
    while block := stream.read(_BLOCK):
        if kept := len(block.rstrip(_NOTHING)):
            end, comma = position + kept, False
        comma |= b"," in block[kept:]
        position += len(block)
    return end, comma


def _backwards(stream: IO[bytes], size: int) -> tuple[int, bool]:
    """As `_forwards`, reading blocks from the end of a text of this size."""
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
