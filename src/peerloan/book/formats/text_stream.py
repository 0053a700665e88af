"""The bytes of a text file, gzipped or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from peerloan.book.parts import BookError, shown

_GZIP = b"\x1f\x8b"


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The text's bytes, and the file that they come from; its faults become BookErrors."""
    where = shown(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == _GZIP
            raw.seek(0)
            yield (gzip.GzipFile(fileobj=raw) if packed else raw), raw  # type: ignore[misc]
    except EOFError:
        raise BookError(f"{where}: expected a whole gzip file, got one that is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BookError(f"{where}: expected a gzip file, got a damaged one: {error}") from None
    except OSError as error:
        raise BookError(f"{where}: can't be read: {error.strerror or error}") from None
