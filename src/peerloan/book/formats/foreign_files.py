"""Recognise files of other formats that are passed as a table, and name the format."""

from __future__ import annotations

from peerloan.book.formats.encodings import guess_encoding
from peerloan.book.parts import BookError

EXPECTED = "CSV (UTF-8), JSON lines, Parquet or Arrow"
_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_KINDS = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"ARROW1": "a gzipped Arrow (Feather) file",
    b"\xff\xff\xff\xff": "a gzipped Arrow stream",
    b"FEA1": "a Feather file of version 1",
    b"PAR1": "a gzipped Parquet file",
    b"PARE": "an encrypted Parquet file",
    b"\x1f\x8b": "a file that is gzipped twice",
    b"%PDF": "a PDF document",
    b"<!DOCTYPE": "an HTML page",
    b"<html": "an HTML page",
    b"<?xml": "an XML document",
    b"version https://git-lfs": "a pointer to a file in Git LFS; fetch it: git lfs pull",
    b"SQLite": "an SQLite database",
}


def expect_text(head: bytes, where: str) -> None:
    """Raise BookError if a file's first bytes show that it is neither CSV nor JSON lines."""
    for magic, kind in _KINDS.items():
        if head.startswith(magic):
            raise BookError(f"{where}: expected {EXPECTED}, got {kind}")
    if encoding := guess_encoding(head):
        raise BookError(
            f"{where}: expected {EXPECTED}, got {encoding} text; convert it: iconv -f {encoding} "
            "-t UTF-8"
        )
    if other := _other_json(head):
        raise BookError(f"{where}: expected {EXPECTED}, got {other}")


def _other_json(head: bytes) -> str | None:
    """Describe JSON that is not JSON lines, with advice; None if it may be."""
    text = head.removeprefix(_BOM).lstrip(_SPACE)
    start = text[:1] + text[1:].lstrip(_SPACE)[:1]
    if start in (b"[{", b"[[", b"[]", b'["'):
        return "a JSON array; put each object on a line: jq -c '.[]' FILE > FILE.jsonl"
    if start in (b'{"', b"{}") and text.partition(b"\n")[0].strip(_SPACE) == b"{":
        return "a JSON object over several lines; put each on one line: jq -c . FILE > FILE.jsonl"
    return None
