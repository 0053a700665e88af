"""A version's manifest, and reading the files that it lists, verified byte by byte."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from peerloan.formatting import show_value
from peerloan.loan import Definition
from peerloan.model import arithmetic
from peerloan.model.arithmetic import IDENTITY, Calibration
from peerloan.model.policy import AT_THRESHOLD, OperatingPoint, Policy, figures_at
from peerloan.registry.errors import RegistryError
from peerloan.regular_files import FileTooLarge, read_regular_file

FORMAT = 1
MANIFEST = "manifest.json"
# The manifest of a table with thousands of fields takes a few megabytes.
MAX_MANIFEST_BYTES = 16_000_000
# Limit for all files of a version together: loading holds them in memory.
MAX_BUNDLE_BYTES = 1_000_000_000
# The warning in every decision of a version that was trained on the built-in sample.
SAMPLE_WARNING = "this model version was trained on the built-in sample: not for real decisions"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILES = {
    "scorecard": ("loan.json", "profile.json", "scorecard.json"),
    "onnx": ("loan.json", "profile.json", "model.onnx", "encoding.json", "background.json"),
}


class BundleError(RegistryError):
    """A bundle that is refused, with the reason."""


class FileEntry(msgspec.Struct, frozen=True):
    """A file's size in bytes and its sha-256 in hex."""

    bytes: int
    sha256: str


class TrainedOn(msgspec.Struct, frozen=True):
    """The training table: its name, fingerprint, loans and late loans."""

    source: str
    fingerprint: str
    loans: int
    late: int
    sample: bool


class GoldenExample(msgspec.Struct, frozen=True):
    """A synthetic loan and this version's expected result for it."""

    loan: dict[str, float | str | None]
    margin: float
    probability: float
    late: bool
    band: str


class CandidateScore(msgspec.Struct, frozen=True):
    """A candidate's result in the search: its best settings, mean figures, and their errors."""

    candidate: str
    settings: str
    figures: dict[str, float]
    errors: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The description of a version. It is written last; its digest is the digest of the version.

    `calibration` is applied to an ONNX estimator's log-odds; a scorecard contains its own.
    `intervals` are 95 % intervals of `metrics`.
    """

    format: int
    arithmetic: int
    version: str
    model: str
    candidate: str
    kind: Literal["scorecard", "onnx"]
    created: str
    trained_on: TrainedOn
    metrics: dict[str, float]
    policy: Policy
    libraries: dict[str, str]
    golden: tuple[GoldenExample, ...]
    files: dict[str, FileEntry]
    calibration: Calibration = IDENTITY
    intervals: dict[str, tuple[float, float]] = {}
    candidates: tuple[CandidateScore, ...] = ()
    trade_off: tuple[OperatingPoint, ...] = ()
    recalibrated_on: TrainedOn | None = None

    @property
    def sample(self) -> bool:
        """Whether the version was trained on the built-in sample, at least in part."""
        books = (self.trained_on, self.recalibrated_on)
        return any(book.sample for book in books if book is not None)

    def check(self, definition: Definition) -> None:
        """Raise ValueError unless the parts are consistent with each other and the definition."""
        if self.model != definition.model:
            raise ValueError(f"is of the model {self.model!r}, its loans of {definition.model!r}")
        self.policy.check()
        if not (
            0 < self.calibration.slope < math.inf and math.isfinite(self.calibration.intercept)
        ):
            raise ValueError(f"calibration: expected a slope above 0, given {self.calibration}")
        if self.kind == "scorecard" and self.calibration != IDENTITY:
            raise ValueError("calibration: a scorecard's stands in its tables")
        if not self.golden:
            raise ValueError("no golden examples")

    def with_policy(self, policy: Policy) -> Manifest:
        """Return the figures that are valid under another policy.

        Of the figures at the policy's threshold, these are the ones in the trade-off table.
        """
        at_threshold = {f"{book}{name}" for book in ("", "later_") for name in AT_THRESHOLD}
        metrics, intervals = (
            {name: value for name, value in given.items() if name not in at_threshold}
            for given in (self.metrics, self.intervals)
        )
        return msgspec.structs.replace(
            self,
            policy=policy,
            metrics=metrics | figures_at(policy, self.trade_off),
            intervals=intervals,
        )


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """Read a version's manifest and digest without its other files. Raises BundleError."""
    try:
        content = read_regular_file(folder / MANIFEST, MAX_MANIFEST_BYTES)
    except OSError as error:
        raise BundleError(f"{folder.name}: no version: {MANIFEST}: {error.strerror}") from None
    try:
        manifest = _manifest_of(folder.name, content)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None
    return manifest, hashlib.sha256(content).hexdigest()


def _manifest_of(version: str, content: bytes) -> Manifest:
    head = decode(content, MANIFEST, dict[str, Any])
    for name, known in (("format", FORMAT), ("arithmetic", arithmetic.ARITHMETIC)):
        given = head.get(name)
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise BundleError(f"{MANIFEST} is no manifest: it has no {name}")
        if given > known:
            raise BundleError(f"{name} {given}; this release reads up to {name} {known}")
    manifest = decode(content, MANIFEST, Manifest)
    if manifest.version != version:
        raise BundleError(f"the manifest is of another version, {show_value(manifest.version)}")
    missing = [name for name in _FILES[manifest.kind] if name not in manifest.files]
    if missing:
        raise BundleError(f"the manifest lacks {', '.join(missing)}")
    for name in manifest.files:
        if not _FILE.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"the manifest names a strange file, {show_value(name)}")
    check_sizes(manifest.files)
    return manifest


def check_sizes(files: Mapping[str, FileEntry]) -> None:
    """Raise BundleError if a version's files together exceed the limit."""
    total = sum(max(0, entry.bytes) for entry in files.values())
    if total > MAX_BUNDLE_BYTES:
        largest = max(files, key=lambda name: files[name].bytes)
        raise BundleError(
            f"its files have {total:,} bytes together, expected at most {MAX_BUNDLE_BYTES:,}; the "
            f"largest is {largest} with {files[largest].bytes:,}"
        )


def read_definition(folder: Path) -> Definition:
    """Read and verify a version's loan definition without its other files. Raises BundleError."""
    manifest, _ = read_manifest(folder)
    content = read_file(folder, "loan.json", manifest.files["loan.json"])
    try:
        return decode(content, "loan.json", Definition)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None


def read_document(folder: Path, name: str) -> str | None:
    """Read and verify a version's document for people; None if it has no document of this name."""
    manifest, _ = read_manifest(folder)
    entry = manifest.files.get(name)
    return None if entry is None else read_file(folder, name, entry).decode()


def read_file(folder: Path, name: str, entry: FileEntry) -> bytes:
    """Read a file of a version; its size and digest must match the manifest. Raises BundleError."""
    try:
        content = read_regular_file(folder / name, entry.bytes)
        size = len(content)
    except FileTooLarge as error:
        content, size = b"", error.size
    except OSError as error:
        raise BundleError(f"{folder.name}: {name}: {error.strerror}") from None
    if size != entry.bytes:
        raise BundleError(
            f"{folder.name}: {name} has {size} bytes, the manifest says {entry.bytes}"
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{folder.name}: {name} was changed: its sha-256 differs")
    return content


_T = TypeVar("_T")


def decode(content: bytes, name: str, kind: type[_T]) -> _T:
    """Decode JSON as this type. Raises BundleError with the name of the file."""
    try:
        return msgspec.json.decode(content, type=kind)
    # A ValueError comes from a definition, or from text that is not UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name} can't be read: {error}") from None
