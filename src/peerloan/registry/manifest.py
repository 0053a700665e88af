"""The manifest of a version, and verified reading of the files that it lists."""

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
from peerloan.model.arithmetic import IDENTITY, PlattCalibration
from peerloan.model.policy import THRESHOLD_FIGURES, OperatingPoint, Policy, figures_at
from peerloan.registry.errors import RegistryError
from peerloan.registry.extras import EXTRAS_FILE, LOAN_FILE, Extras
from peerloan.regular_files import FileTooLarge, read_regular_file

FORMAT = 1
MANIFEST = "manifest.json"
# The manifest of a table with thousands of fields takes a few megabytes.
MAX_MANIFEST_BYTES = 16_000_000
# Limit of the total size of a version's files, which are in memory while the version is loaded.
MAX_BUNDLE_BYTES = 1_000_000_000
# The warning in every decision of a version that was trained on the built-in sample.
SAMPLE_WARNING = "this model version was trained on the built-in sample: not for real decisions"
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILES = {
    "scorecard": ("loan.json", "profile.json", "scorecard.json"),
    "onnx": ("loan.json", "profile.json", "model.onnx", "encoding.json", "background.json"),
}


class BundleError(RegistryError):
    """A bundle is refused; the message gives the reason."""


class FileEntry(msgspec.Struct, frozen=True):
    """A file's size in bytes and its sha-256 in hex."""

    bytes: int
    sha256: str


class TrainedOn(msgspec.Struct, frozen=True):
    """A training table: its name, its fingerprint, and the numbers of loans and late loans.

    `sample`: whether it is the built-in sample.
    """

    source: str
    fingerprint: str
    loans: int
    late: int
    sample: bool


class GoldenExample(msgspec.Struct, frozen=True):
    """A synthetic loan and the version's expected result for it."""

    loan: dict[str, float | str | None]
    margin: float
    probability: float
    late: bool
    band: str


class CandidateScore(msgspec.Struct, frozen=True):
    """A candidate's result in the search: best settings, mean figures and their standard errors."""

    candidate: str
    settings: str
    figures: dict[str, float]
    errors: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The description of a version. It is written last; its digest is the digest of the version.

    `calibration` is applied to the log-odds of an ONNX estimator. A scorecard's tables are already
    calibrated. `intervals` are 95 % intervals of `metrics`.
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
    calibration: PlattCalibration = IDENTITY
    intervals: dict[str, tuple[float, float]] = {}
    candidates: tuple[CandidateScore, ...] = ()
    trade_off: tuple[OperatingPoint, ...] = ()
    recalibrated_on: TrainedOn | None = None

    @property
    def sample(self) -> bool:
        """Whether the version was trained or recalibrated on the built-in sample."""
        tables = (self.trained_on, self.recalibrated_on)
        return any(table.sample for table in tables if table is not None)

    def check(self, definition: Definition) -> None:
        """Raise ValueError unless the parts are consistent with each other and the definition."""
        if self.model != definition.model:
            raise ValueError(
                f"model: expected {definition.model!r}, as in loan.json, given {self.model!r}"
            )
        self.policy.check()
        if not (
            0 < self.calibration.slope < math.inf and math.isfinite(self.calibration.intercept)
        ):
            raise ValueError(f"calibration: expected a slope above 0, given {self.calibration}")
        if self.kind == "scorecard" and self.calibration != IDENTITY:
            raise ValueError("calibration: expected none, because a scorecard's tables include it")
        if not self.golden:
            raise ValueError("golden: expected at least one example")

    def with_policy(self, policy: Policy) -> Manifest:
        """Return the manifest with another policy and the figures that are valid for it.

        Figures at the threshold are looked up in the trade-off table; others are dropped.
        """
        at_threshold = {f"{book}{name}" for book in ("", "later_") for name in THRESHOLD_FIGURES}
        metrics, intervals = (
            {name: value for name, value in figures.items() if name not in at_threshold}
            for figures in (self.metrics, self.intervals)
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
        raise BundleError(f"{folder.name}: is no version: {MANIFEST}: {error.strerror}") from None
    try:
        manifest = _manifest_of(folder.name, content)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None
    return manifest, hashlib.sha256(content).hexdigest()


def _manifest_of(version: str, content: bytes) -> Manifest:
    head = decode(content, MANIFEST, dict[str, Any])
    for name, highest in (("format", FORMAT), ("arithmetic", arithmetic.ARITHMETIC)):
        number = head.get(name)
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise BundleError(f"{MANIFEST}: {name}: expected a number from 1 to {highest}")
        if number > highest:
            raise BundleError(
                f"{MANIFEST}: {name}: this release reads 1 to {highest}, given {number}; a newer "
                "release may read it"
            )
    manifest = decode(content, MANIFEST, Manifest)
    if manifest.version != version:
        raise BundleError(
            f"{MANIFEST}: version: expected the name of the folder, given "
            f"{show_value(manifest.version)}"
        )
    missing = [name for name in _FILES[manifest.kind] if name not in manifest.files]
    if missing:
        raise BundleError(f"{MANIFEST}: files: expected also {', '.join(missing)}")
    for name in manifest.files:
        if not _FILE.fullmatch(name) or name == MANIFEST:
            raise BundleError(
                f"{MANIFEST}: files: expected names of letters, digits, ., _ and -, given "
                f"{show_value(name)}"
            )
    check_sizes(manifest.files)
    return manifest


def check_sizes(files: Mapping[str, FileEntry]) -> None:
    """Raise BundleError if a version's files together exceed the limit."""
    total = sum(max(0, entry.bytes) for entry in files.values())
    if total > MAX_BUNDLE_BYTES:
        largest = max(files, key=lambda name: files[name].bytes)
        raise BundleError(
            f"files: expected at most {MAX_BUNDLE_BYTES:,} bytes in total, given {total:,}; the "
            f"largest is {largest} with {files[largest].bytes:,} bytes"
        )


def read_definition(folder: Path) -> Definition:
    """Read and verify a version's loan definition without its other files. Raises BundleError."""
    manifest, _ = read_manifest(folder)
    files = {
        name: read_file(folder, name, manifest.files[name])
        for name in (LOAN_FILE, EXTRAS_FILE)
        if name in manifest.files
    }
    try:
        return decode_definition(files)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None


def decode_definition(files: Mapping[str, bytes]) -> Definition:
    """Decode the loan definition from a version's files. Raises BundleError."""
    definition = decode(files[LOAN_FILE], LOAN_FILE, Definition)
    if EXTRAS_FILE not in files:
        return definition
    extras = decode(files[EXTRAS_FILE], EXTRAS_FILE, Extras)
    try:
        return extras.added_to(definition)
    except ValueError as error:
        raise BundleError(f"{EXTRAS_FILE}: {error}") from None


def read_document(folder: Path, name: str) -> str | None:
    """Read and verify a document (`report.html`, `card.md`); None if the version has none."""
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
            f"{folder.name}: {name}: expected {entry.bytes:,} bytes, as in the manifest, "
            f"given {size:,}"
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(
            f"{folder.name}: {name} was changed: its sha-256 is not the one in the manifest"
        )
    return content


_T = TypeVar("_T")


def decode(content: bytes, name: str, kind: type[_T]) -> _T:
    """Decode JSON as this type. Raises BundleError, whose message names the file."""
    try:
        return msgspec.json.decode(content, type=kind)
    # A ValueError comes from a definition, or from text that is not UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name} can't be read: {error}") from None
