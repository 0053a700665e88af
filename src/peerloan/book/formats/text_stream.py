"""Open a text file, gzipped or not, as bytes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from peerloan.book.parts import BookError, show_path

_GZIP = b"\x1f\x8b"


@contextmanager
def open_stream(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield the uncompressed stream and the raw file (the same if not gzipped).

    Errors while reading become BookError.
    """
    where = show_path(path)
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == _GZIP
            raw.seek(0)
            yield (gzip.GzipFile(fileobj=raw) if is_gzip else raw), raw  # type: ignore[misc]
    except EOFError:
        raise BookError(f"{where}: expected a whole gzip file, got one that is cut off") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BookError(f"{where}: expected a gzip file, got a damaged one: {error}") from None
    except OSError as error:
        raise BookError(f"{where}: can't be read: {error.strerror or error}") from None
