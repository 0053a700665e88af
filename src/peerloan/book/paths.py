"""Find the files of a book: one file, a folder with its subfolders, or a glob."""

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

from peerloan.book.parts import BookError, show_path
from peerloan.formatting import agree, plural

# In a folder, a file with one of these endings is a table; others are recognised by their content.
ENDINGS = (
    *(".csv", ".csv.gz", ".parquet"),
    *(".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz"),
    *(".arrow", ".arrows", ".feather", ".ipc"),
)
# How many file names a message lists; a folder may have thousands.
_NAMES = 20

# Reasons for skipping files, which complete the sentence "skipped, since they …".
SAME = "are already read under another name"
UNDERSCORE = "begin with _"
UNFINISHED = "may belong to a job that has not finished"
IRREGULAR = "are not regular files"
NO_TABLE = "are not a table by ending or content"
OTHER_FORMAT = "have another format"
NO_ROW = "have no rows"


@dataclass
class BookFiles:
    """The files of a book, sorted by path.

    `root` is the folder that contains them, None for a single file. `passed_over` lists the skipped
    files and folders by reason. `names_ending` is true for a glob that names an ending, such as
    "*.txt": each match is then read as a table.
    """

    root: Path | None = None
    files: list[Path] = field(default_factory=list)
    passed_over: dict[str, list[Path]] = field(default_factory=dict)
    names_ending: bool = False

    def pass_over(self, path: Path, reason: str) -> None:
        """Record a file or folder that is skipped, and why."""
        self.passed_over.setdefault(reason, []).append(path)

    def is_table(self, path: Path) -> bool:
        """Whether a file is read as a table without looking at its content."""
        return self.root is None or self.names_ending or path.name.lower().endswith(ENDINGS)

    def notes(self, read: int) -> Iterator[str]:
        """Notes: how many files are read and what is skipped. None for a single file."""
        if self.root is None:
            return
        yield f"{plural(read, 'file')} {agree(read, 'was', 'were')} read"
        yield from self.reasons()

    def refusal(self, name: str) -> BookError:
        """The error if no file is left to read."""
        expected = "with loans" if NO_ROW in self.passed_over else f"({', '.join(ENDINGS)})"
        where = "that match" if glob.has_magic(name) else "in this folder"
        text = f"{name}: expected files {expected} {where}, got none"
        return BookError("; ".join([text, *self.reasons()]))

    def reasons(self) -> Iterator[str]:
        """What is skipped and why, one sentence a reason."""
        for reason, paths in self.passed_over.items():
            yield f"skipped, since they {reason}: {self.names([*dict.fromkeys(paths)])}"

    def names(self, paths: list[Path]) -> str:
        """Paths relative to the root, at most 20 of them."""
        rest = len(paths) - _NAMES
        names = [show_path(path.relative_to(self.root or "")) for path in sorted(paths)[:_NAMES]]
        return ", ".join(names) + (f" and {rest:,} more" if rest > 0 else "")


def list_files(spec: str | Path) -> BookFiles:
    """Find the files of a book; raises BookError, or OSError for an unreadable folder."""
    name = show_path(spec)
    if not str(spec):
        raise BookError("expected a file, a folder or a glob, got an empty name")
    if "\x00" in str(spec):
        raise BookError(f"{name!r}: no such file")
    path = Path(spec)
    if path.is_dir():
        listing = BookFiles(path)
        _add_files(listing, [path])
        if not listing.files:
            raise listing.refusal(name)
        return listing
    if not path.exists() and glob.has_magic(str(spec)):
        return _list_matches(str(spec))
    if not path.exists():
        raise BookError(f"{name}: no such file")
    if not path.is_file():
        raise BookError(
            f"{name}: expected a file, got a pipe or a device: a book is read more than once; "
            "write it to a file first"
        )
    return BookFiles(files=[path])


def _list_matches(pattern: str) -> BookFiles:
    """The files that a glob matches, and the files in the folders that it matches."""
    parts = Path(pattern).parts
    first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    listing = BookFiles(Path(*parts[:first]))
    matched = sorted(_expand_pattern(listing, parts[first:]))
    if not matched:
        raise BookError(f"{show_path(pattern)}: no file matches")
    ending = re.sub(r".*[\]*?]", "", parts[-1])
    listing.names_ending = "." in ending
    if not any(part.startswith("_") for part in parts[first:]):
        matched = list(_without_underscore(listing, matched))
    _add_files(listing, matched)
    if not listing.files:
        raise listing.refusal(show_path(pattern))
    return listing


def _expand_pattern(listing: BookFiles, parts: Sequence[str]) -> Iterator[Path]:
    """Expand a pattern below the listing's root, like `glob` (`**` matches folders at any depth).

    There are two differences. Each folder is read once per pattern part, even if several links lead
    to it. And an unreadable folder raises OSError, where `glob` would leave its files out silently.
    """
    folders = [listing.root or Path()]
    for part in parts[:-1]:
        folders = [*_distinct_folders(listing, _expand_part(folders, part))]
    if parts[-1] != "**":
        yield from (path for path, _ in _expand_part(folders, parts[-1]))
        return
    for folder in _distinct_folders(listing, _expand_part(folders, "**")):
        yield folder
        yield from (path for path, is_folder in _expand_part([folder], "*") if not is_folder)


def _expand_part(folders: Iterable[Path], part: str) -> Iterator[tuple[Path, bool]]:
    """The matches of one pattern part in these folders, each with whether it is a folder."""
    if part == "**":
        # Follow links last, so that a folder is listed under its real path.
        waiting, links = [*folders][::-1], deque[Path]()
        visited: set[tuple[int, int]] = set()
        while waiting or links:
            folder = waiting.pop() if waiting else links.popleft()
            yield folder, True
            if (identity := _identity(folder)) in visited:
                continue
            visited.add(identity)
            below = [path for path, is_folder in _expand_part([folder], "*") if is_folder]
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


def _distinct_folders(listing: BookFiles, matches: Iterable[tuple[Path, bool]]) -> Iterator[Path]:
    """The folders among the matches; each once, under its first path."""
    first_paths: dict[tuple[int, int], Path] = {}
    for path, is_folder in matches:
        if is_folder:
            first = first_paths.setdefault(_identity(path), path)
            if first is path:
                yield path
            elif first != path:
                listing.pass_over(path, SAME)


def _identity(path: Path) -> tuple[int, int]:
    """Identify a folder independently of its path."""
    status = path.stat()
    # Some file systems have no inode numbers.
    return (status.st_dev, status.st_ino) if status.st_ino else (hash(path), 0)


def _without_underscore(listing: BookFiles, matched: list[Path]) -> Iterator[Path]:
    """The matches that are not hidden; hidden tables are recorded as skipped."""
    for path in matched:
        below = path.relative_to(listing.root or "").parts
        if not any(map(_is_hidden, below)):
            yield path
        elif path.is_file() and path.name.lower().endswith(ENDINGS):
            listing.pass_over(path, UNDERSCORE)


def _add_files(listing: BookFiles, paths: list[Path]) -> None:
    """Add files, and all files below folders, to the listing; each file once."""
    first_paths: dict[tuple[object, int], Path] = {}
    waiting = paths[::-1]
    while waiting:
        path = waiting.pop()
        try:
            status = path.stat()
        except FileNotFoundError:
            if not listing.is_table(path):
                listing.pass_over(path, IRREGULAR)
                continue
            raise BookError(f"{show_path(path)}: is a link to a file that does not exist") from None
        # Some file systems have no inode numbers.
        identity = (status.st_dev, status.st_ino) if status.st_ino else (str(path), 0)
        first = first_paths.setdefault(identity, path)
        if first is not path:
            # A glob may match both a folder and a file in it, or a link and its target.
            if first != path:
                listing.pass_over(path, SAME)
        elif stat.S_ISDIR(status.st_mode):
            waiting += reversed(list(_entries(listing, path)))
        elif stat.S_ISREG(status.st_mode):
            listing.files.append(path)
        else:
            listing.pass_over(path, IRREGULAR)
    listing.files.sort()


def _entries(listing: BookFiles, folder: Path) -> Iterator[Path]:
    """The entries of a folder without hidden ones; raises BookError for a managed table."""
    entries = sorted(folder.iterdir())
    _refuse_managed_table(folder, {entry.name for entry in entries})
    for entry in entries:
        if not _is_hidden(entry.name):
            yield entry
        elif entry.name == "_temporary":
            listing.pass_over(entry, UNFINISHED)
        elif entry.name.startswith("_") and entry.name.lower().endswith(ENDINGS):
            listing.pass_over(entry, UNDERSCORE)


def _is_hidden(name: str) -> bool:
    """Whether Spark treats a name as hidden; a partition column may begin with _."""
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _refuse_managed_table(folder: Path, names: set[str]) -> None:
    """Raise BookError for a table format whose folder also contains outdated files."""
    kind = ""
    if "_delta_log" in names:
        kind = "a Delta table"
    elif ".hoodie" in names:
        kind = "a Hudi table"
    elif "metadata" in names and any(folder.glob("metadata/*.metadata.json")):
        kind = "an Iceberg table"
    if kind:
        raise BookError(
            f"{show_path(folder)}: expected a folder of files, got {kind}, which also contains "
            "files that are no longer part of the table; export its current rows as Parquet"
        )
