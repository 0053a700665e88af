"""Which files a book has: one file, those of a folder and its subfolders, or those of a glob."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peerloan.book.parts import BookError, shown

# A file in a folder with such an ending is a table; any other one is told by its content.
ENDINGS = (
    *(".csv", ".csv.gz", ".parquet"),
    *(".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    *(".arrow", ".arrows", ".feather", ".ipc"),
)
# Names that a list shows; a folder may have thousands.
_NAMES = 20

SAME = "are read under another name already"
UNDERSCORE = "begin with _"
UNFINISHED = "may be of a job that has not ended"
IRREGULAR = "are no regular files"
NO_TABLE = "are no table by ending or content"
OTHER_FORMAT = "are of another format"
NO_ROW = "hold no row"


@dataclass
class Listing:
    """The files that a book's name stands for, in the order of their paths.

    `root` is the folder below which they lie, None for a single file. `passed_over` has by reason
    what was met and is not read.
    """

    root: Path | None = None
    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    # Whether every file was asked for by its ending, as "*.txt" does.
    endings_asked: bool = False

    def pass_over(self, path: Path, reason: str) -> None:
        """Count a file or folder among what is not read."""
        self.passed_over.setdefault(reason, []).append(path)

    def is_table(self, path: Path) -> bool:
        """Whether a file is to be read whatever its content is."""
        return self.root is None or self.endings_asked or path.name.lower().endswith(ENDINGS)

    def notes(self, read: int) -> Iterator[str]:
        """How many files are read and what was passed over; nothing of a single file."""
        if self.root is None:
            return
        yield "1 file was read" if read == 1 else f"{read:,} files were read"
        yield from self.reasons()

    def refusal(self, name: str) -> BookError:
        """What is wrong if nothing is left to read."""
        expected = "with loans" if NO_ROW in self.passed_over else f"({', '.join(ENDINGS)})"
        where = "that match" if glob.has_magic(name) else "in this folder"
        text = f"{name}: expected files {expected} {where}, got none"
        return BookError("; ".join([text, *self.reasons()]))

    def reasons(self) -> Iterator[str]:
        """What was passed over, and why, each reason in a sentence."""
        for reason, paths in self.passed_over.items():
            yield f"passed over, since they {reason}: {self.names([*dict.fromkeys(paths)])}"

    def names(self, paths: list[Path]) -> str:
        """Paths as they are below the root, the first of many."""
        rest = len(paths) - _NAMES
        names = [shown(path.relative_to(self.root or "")) for path in sorted(paths)[:_NAMES]]
        return ", ".join(names) + (f" and {rest:,} more" if rest > 0 else "")


def list_files(spec: str | Path) -> Listing:
    """The files of a book; raises BookError, or OSError for a folder that can't be read."""
    name = shown(spec)
    if not str(spec):
        raise BookError("expected a file, a folder or a glob, got an empty name")
    if "\x00" in str(spec):
        raise BookError(f"{name!r}: no such file")
    path = Path(spec)
    if path.is_dir():
        listing = Listing(path)
        _walk(listing, [path])
        if not listing.files:
            raise listing.refusal(name)
        return listing
    if not path.exists() and glob.has_magic(str(spec)):
        return _matches(str(spec))
    if not path.exists():
        raise BookError(f"{name}: no such file")
    if not path.is_file():
        raise BookError(
            f"{name}: expected a file, got a pipe or a device: a book is read more than once; "
            "write it to a file first"
        )
    return Listing(files=[path])


def _matches(pattern: str) -> Listing:
    """The files that a glob matches, and those of the folders that it matches."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    listing = Listing(Path(*parts[:first]))
    matched = sorted(_matched(listing, parts[first:]))
    if not matched:
        raise BookError(f"{shown(pattern)}: no file matches")
    ending = re.sub(r".*[\]*?]", "", parts[-1])
    listing.endings_asked = "." in ending
    if not any(part.startswith("_") for part in parts[first:]):
        matched = list(_without_underscore(listing, matched))
    _walk(listing, matched)
    if not listing.files:
        raise listing.refusal(shown(pattern))
    return listing


def _matched(listing: Listing, parts: Sequence[str]) -> Iterator[Path]:
    """What a pattern matches below the listing's root, as `glob` has it (`**`: folders at any
    depth); but each folder is looked into once for each part, whatever links lead to it.

    Raises OSError for a folder that has to be read and can't: it would be left out.
    """
    folders = [listing.root or Path()]
    for part in parts[:-1]:
        folders = [*_once(listing, _step(folders, part))]
    if parts[-1] != "**":
        yield from (path for path, _ in _step(folders, parts[-1]))
        return
    for folder in _once(listing, _step(folders, "**")):
        yield folder
        yield from (path for path, is_folder in _step([folder], "*") if not is_folder)


def _step(folders: Iterable[Path], part: str) -> Iterator[tuple[Path, bool]]:
    """What one part of a pattern matches in these folders, and whether it is a folder."""
    if part == "**":
        # Links last: a folder keeps the name that it has without them.
        waiting, links = [*folders][::-1], deque[Path]()
        met: set[tuple[int, int]] = set()
        while waiting or links:
            folder = waiting.pop() if waiting else links.popleft()
            yield folder, True
            if (identity := _identity(folder)) in met:
                continue
            met.add(identity)
            below = [path for path, is_folder in _step([folder], "*") if is_folder]
            links += (path for path in below if path.is_symlink())
            waiting += (path for path in reversed(below) if not path.is_symlink())
        return
    for folder in folders:
        if not glob.has_magic(part):
            if os.path.lexists(folder / part):
                yield folder / part, (folder / part).is_dir()
            continue
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
        for name, is_folder in names:
            if fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith(".")):
                yield folder / name, is_folder


def _once(listing: Listing, matches: Iterable[tuple[Path, bool]]) -> Iterator[Path]:
    """The folders among matches, each under its first name."""
    met: dict[tuple[int, int], Path] = {}
    for path, is_folder in matches:
        if is_folder:
            first = met.setdefault(_identity(path), path)
            if first is path:
                yield path
            elif first != path:
                listing.pass_over(path, SAME)


def _identity(path: Path) -> tuple[int, int]:
    """What tells one folder from another, whatever its name."""
    status = path.stat()
    # Some file systems number no files.
    return (status.st_dev, status.st_ino) if status.st_ino else (hash(path), 0)


def _without_underscore(listing: Listing, matched: list[Path]) -> Iterator[Path]:
    for path in matched:
        below = path.relative_to(listing.root or "").parts
        if not any(map(_is_hidden, below)):
            yield path
        elif path.is_file() and path.name.lower().endswith(ENDINGS):
            listing.pass_over(path, UNDERSCORE)


def _walk(listing: Listing, paths: list[Path]) -> None:
    """Add files, and the files of folders with their subfolders; each one once."""
    met: dict[tuple[object, int], Path] = {}
    waiting = paths[::-1]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
        except FileNotFoundError:
            if not listing.is_table(path):
                listing.pass_over(path, IRREGULAR)
                continue
            raise BookError(f"{shown(path)}: is a link to a file that is not there") from None
        # Some file systems number no files.
        identity = (status.st_dev, status.st_ino) if status.st_ino else (str(path), 0)
        first = met.setdefault(identity, path)
        if first is not path:
            # A glob may match a folder and what is in it; a link may lead to what is read anyhow.
            if first != path:
                listing.pass_over(path, SAME)
        elif stat.S_ISDIR(status.st_mode):
            waiting += reversed(list(_entries(listing, path)))
        elif stat.S_ISREG(status.st_mode):
            listing.files.append(path)
        else:
            listing.pass_over(path, IRREGULAR)
    listing.files.sort()


def _entries(listing: Listing, folder: Path) -> Iterator[Path]:
    """What is in a folder, hidden things left out; raises BookError for a managed table."""
    entries = sorted(folder.iterdir())
    _expect_plain(folder, {entry.name for entry in entries})
    for entry in entries:
        if not _is_hidden(entry.name):
            yield entry
        elif entry.name == "_temporary":
            listing.pass_over(entry, UNFINISHED)
        elif entry.name.startswith("_") and entry.name.lower().endswith(ENDINGS):
            listing.pass_over(entry, UNDERSCORE)


def _is_hidden(name: str) -> bool:
    """Whether a name is hidden, as Spark has it: a partition's column may begin with _."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _expect_plain(folder: Path, names: set[str]) -> None:
    """Raises BookError for a table whose folder also holds files that count no longer."""
    kind = ""
    if "_delta_log" in names:
        kind = "a Delta table"
    elif ".hoodie" in names:
        kind = "a Hudi table"
    elif "metadata" in names and any(folder.glob("metadata/*.metadata.json")):
        kind = "an Iceberg table"
    if kind:
        raise BookError(
            f"{shown(folder)}: expected a folder of files, got {kind}, which also holds files "
            "that count no longer; export the rows that count as Parquet"
        )
