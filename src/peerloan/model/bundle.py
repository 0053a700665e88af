"""A bundle: one deployable version of a model, as plain data with its digests.

Nothing in it is executed or unpickled. It is opened only when every digest holds and its golden
examples reproduce; every other case is a BundleError that says why.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from peerloan.loan import Checks, Definition, Loans, Numbers, Value
from peerloan.loan.text import show_given
from peerloan.model import arithmetic
from peerloan.model.arithmetic import IDENTITY, Calibration
from peerloan.model.encoding import Encoding
from peerloan.model.onnx_model import OnnxModel, background_size
from peerloan.model.policy import (
    AT_THRESHOLD,
    BANDS,
    Policy,
    Reason,
    Reasons,
    TradeOff,
    figures_at,
)
from peerloan.model.profile import NumberProfile, Profile
from peerloan.model.scorecard import Scorecard

FORMAT = 1
MANIFEST = "manifest.json"
_GOLDEN_EXAMPLES = 20
# An ONNX version reproduces to this on another kind of processor or another runtime.
_ONNX_TOLERANCE = 1e-6
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILES = {
    "scorecard": ("loan.json", "profile.json", "scorecard.json"),
    "onnx": ("loan.json", "profile.json", "model.onnx", "encoding.json", "background.json"),
}


class BundleError(ValueError):
    """A bundle that is refused, and why."""


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


class Golden(msgspec.Struct, frozen=True):
    """A synthetic loan and what this version says of it."""

    loan: dict[str, float | str | None]
    margin: float
    probability: float
    late: bool
    band: str


class Score(msgspec.Struct, frozen=True):
    """How a candidate did in the search: its best settings, mean figures, and their errors."""

    candidate: str
    settings: str
    figures: dict[str, float]
    errors: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a version is; written last, and its digest is the version's.

    `calibration` is applied to an ONNX estimator's log-odds; a scorecard holds its own. `intervals`
    are 95 % intervals of `metrics`.
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
    golden: tuple[Golden, ...]
    files: dict[str, FileEntry]
    calibration: Calibration = IDENTITY
    intervals: dict[str, tuple[float, float]] = {}
    candidates: tuple[Score, ...] = ()
    trade_off: tuple[TradeOff, ...] = ()
    recalibrated_on: TrainedOn | None = None

    def under(self, policy: Policy) -> Manifest:
        """What holds under another policy: of the figures at its threshold, those that the
        trade-off tells.
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


@dataclass(frozen=True)
class OnnxParts:
    """An ONNX estimator before it is in a bundle: the graph, its encoding, its calibration."""

    graph: bytes
    encoding: Encoding
    calibration: Calibration = IDENTITY


@dataclass(frozen=True)
class Judged:
    """How a version did on loans that it was not fitted on; all of it goes into the manifest."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    candidates: tuple[Score, ...]
    trade_off: tuple[TradeOff, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """What a version says of one loan. `contributions` and `reasons` are None if not asked for."""

    margin: float
    probability: float
    late: bool
    band: str
    contributions: tuple[float, ...] | None
    reasons: list[Reason] | None


class Bundle:
    """One version, opened: it decides."""

    def __init__(self, manifest: Manifest, digest: str, files: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self.digest = digest
        self.version = manifest.version
        self.policy = manifest.policy
        self.model: Scorecard | OnnxModel
        try:
            self.definition = _decode(files["loan.json"], "loan.json", Definition)
            self.profile = _decode(files["profile.json"], "profile.json", Profile)
            _check_profile(self.profile, self.definition)
            if manifest.kind == "scorecard":
                self.model = _decode(files["scorecard.json"], "scorecard.json", Scorecard)
                self.model.check(self.definition)
            else:
                self.model = OnnxModel(
                    files["model.onnx"],
                    _decode(files["encoding.json"], "encoding.json", Encoding),
                    self.definition,
                    Loans.of(self.definition, self._rows(files["background.json"])),
                    manifest.files["model.onnx"].sha256,
                    manifest.calibration,
                )
            self._reasons = Reasons(self.definition, self.profile)
            self._verify_golden()
        except Exception as error:  # foreign data: the runtime's errors, too, have no common base
            raise BundleError(f"{self.version}: {' '.join(str(error).split())}") from error

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read and verify a version's folder; raises BundleError."""
        manifest, digest = read_manifest(folder)
        files = {name: _read_file(folder, name, entry) for name, entry in manifest.files.items()}
        return cls(manifest, digest, files)

    @property
    def base(self) -> float:
        """The margin from which contributions count."""
        return self.model.base

    def decide(self, values: Sequence[Value], explain: bool = True) -> Decision:
        """Decide on one loan, given its checked values in the fields' order."""
        margin, contributions = (
            self.model.score(values) if explain else (self.model.margin(values), ())
        )
        return Decision(
            margin,
            arithmetic.probability(margin),
            self.policy.late(margin),
            self.policy.band(margin),
            contributions if explain else None,
            self._reasons.of(values, contributions) if explain else None,
        )

    def score_many(self, loans: Loans) -> tuple[Numbers, Numbers | None]:
        """Margins (n,), and contributions (n, features) if they come at no extra cost."""
        if isinstance(self.model, Scorecard):
            return self.model.score_many(loans)
        return self.model.margins(loans), None

    def explain(self, values: Sequence[Value], contributions: Sequence[float]) -> list[Reason]:
        """The reasons that follow from a loan's contributions."""
        return self._reasons.of(values, contributions)

    def sentence(self, position: int, value: Value) -> str:
        """What a reason says of a value of the field at this position."""
        return self._reasons.sentence(position, value)

    def _rows(self, background: bytes) -> list[tuple[Value, ...]]:
        return [
            _values(self.definition, loan)
            for loan in _decode(background, "background.json", list[dict[str, float | str | None]])
        ]

    def _verify_golden(self) -> None:
        if not self.manifest.golden:
            raise BundleError("no golden examples")
        for i, golden in enumerate(self.manifest.golden):
            found = self.decide(_values(self.definition, golden.loan), explain=False)
            same = (
                found.margin == golden.margin
                if self.manifest.kind == "scorecard"
                else abs(found.probability - golden.probability) <= _ONNX_TOLERANCE
            )
            if not same or (found.late, found.band) != (golden.late, golden.band):
                raise BundleError(
                    f"golden example {i + 1} does not reproduce: "
                    f"probability {found.probability}, the manifest says {golden.probability}"
                )


@dataclass(frozen=True)
class Draft:
    """A version before it has a name: all of its files, and the manifest's other parts."""

    manifest: Manifest
    files: dict[str, bytes]

    def named(self, version: str, created: str) -> tuple[bytes, Bundle]:
        """The manifest's bytes under this name, and the bundle, opened and verified."""
        manifest = msgspec.structs.replace(self.manifest, version=version, created=created)
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        try:
            # As it will be read: a NaN, for one, has no place in JSON.
            manifest = _decode(content, MANIFEST, Manifest)
        except BundleError as error:
            raise BundleError(f"{version}: {error}") from None
        return content, Bundle(manifest, hashlib.sha256(content).hexdigest(), self.files)


def draft(
    *,
    candidate: str,
    definition: Definition,
    estimator: Scorecard | OnnxParts,
    policy: Policy,
    profile: Profile,
    trained_on: TrainedOn,
    judged: Judged,
    libraries: dict[str, str],
    documents: Mapping[str, str],
) -> Draft:
    """Put a trained estimator and what belongs to it together; `documents` are for people."""
    parts: dict[str, Any] = {"loan.json": definition, "profile.json": profile}
    files = {name: text.encode() for name, text in documents.items()}
    kind: Literal["scorecard", "onnx"]
    model: Scorecard | OnnxModel
    calibration = IDENTITY
    if isinstance(estimator, Scorecard):
        kind, model = "scorecard", estimator
        parts["scorecard.json"] = estimator
    else:
        kind, calibration = "onnx", estimator.calibration
        background = profile.draw(definition, background_size(len(definition.fields)), seed=1)
        parts["encoding.json"] = estimator.encoding
        parts["background.json"] = [_record(definition, row) for row in background.rows()]
        files["model.onnx"] = estimator.graph
        model = OnnxModel(
            estimator.graph, estimator.encoding, definition, background, "", calibration
        )
    for name, part in parts.items():
        files[name] = msgspec.json.format(msgspec.json.encode(part), indent=1)
    examples = profile.draw(definition, _GOLDEN_EXAMPLES, seed=2)
    manifest = Manifest(
        format=FORMAT,
        arithmetic=arithmetic.ARITHMETIC,
        version="",
        model=definition.model,
        candidate=candidate,
        kind=kind,
        created="",
        trained_on=trained_on,
        metrics=judged.metrics,
        policy=policy,
        libraries=libraries | {"processor": platform.machine()},
        golden=tuple(_golden(definition, model, policy, examples)),
        files=_entries(files),
        calibration=calibration,
        intervals=judged.intervals,
        candidates=judged.candidates,
        trade_off=judged.trade_off,
    )
    return Draft(manifest, files)


def with_policy(folder: Path, policy: Policy, documents: Mapping[str, str]) -> Draft:
    """A version's draft under another policy; `documents` replace those of the same name."""
    bundle = Bundle.read(folder)
    files = {
        name: _read_file(folder, name, entry) for name, entry in bundle.manifest.files.items()
    } | {name: text.encode() for name, text in documents.items()}
    examples = bundle.profile.draw(bundle.definition, _GOLDEN_EXAMPLES, seed=2)
    manifest = msgspec.structs.replace(
        bundle.manifest.under(policy),
        golden=tuple(_golden(bundle.definition, bundle.model, policy, examples)),
        files=_entries(files),
    )
    return Draft(manifest, files)


def read_onnx_parts(folder: Path) -> OnnxParts:
    """An ONNX version's estimator as it was drafted; raises BundleError."""
    manifest, _ = read_manifest(folder)
    if manifest.kind != "onnx":
        raise BundleError(f"{folder.name}: is a {manifest.kind}, and holds no ONNX")
    graph, encoding = (
        _read_file(folder, name, manifest.files[name]) for name in ("model.onnx", "encoding.json")
    )
    parts = _decode(encoding, "encoding.json", Encoding)
    return OnnxParts(graph, parts, manifest.calibration)


def _entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
    }


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """A version's manifest and its digest, without opening the rest; raises BundleError."""
    try:
        content = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder.name}: no version: {MANIFEST}: {error.strerror}") from None
    try:
        manifest = _manifest_of(folder.name, content)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None
    return manifest, hashlib.sha256(content).hexdigest()


def _manifest_of(version: str, content: bytes) -> Manifest:
    head = _decode(content, MANIFEST, dict[str, Any])
    for name, known in (("format", FORMAT), ("arithmetic", arithmetic.ARITHMETIC)):
        given = head.get(name)
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise BundleError(f"{MANIFEST} is no manifest: it has no {name}")
        if given > known:
            raise BundleError(f"{name} {given}; this release reads up to {name} {known}")
    manifest = _decode(content, MANIFEST, Manifest)
    if manifest.version != version:
        raise BundleError(f"the manifest is of another version, {show_given(manifest.version)}")
    missing = [name for name in _FILES[manifest.kind] if name not in manifest.files]
    if missing:
        raise BundleError(f"the manifest lacks {', '.join(missing)}")
    for name in manifest.files:
        if not _FILE.fullmatch(name) or name == MANIFEST:
            raise BundleError(f"the manifest names a strange file, {show_given(name)}")
    return manifest


def read_definition(folder: Path) -> Definition:
    """A version's loan definition, verified, without opening the rest; raises BundleError."""
    manifest, _ = read_manifest(folder)
    content = _read_file(folder, "loan.json", manifest.files["loan.json"])
    try:
        return _decode(content, "loan.json", Definition)
    except BundleError as error:
        raise BundleError(f"{folder.name}: {error}") from None


def _read_file(folder: Path, name: str, entry: FileEntry) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{folder.name}: {name}: {error.strerror}") from None
    if len(content) != entry.bytes:
        raise BundleError(
            f"{folder.name}: {name} has {len(content)} bytes, the manifest says {entry.bytes}"
        )
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise BundleError(f"{folder.name}: {name} was changed: its sha-256 differs")
    return content


_T = TypeVar("_T")


def _decode(content: bytes, name: str, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(content, type=kind)
    # A ValueError may be a definition's, or of text that is no UTF-8.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BundleError(f"{name} can't be read: {error}") from None


def _check_profile(profile: Profile, definition: Definition) -> None:
    profile.check(definition)
    for field, column in zip(definition.fields, profile.columns, strict=True):
        if field.is_number != isinstance(column, NumberProfile):
            raise ValueError(f"{field.name}: a {field.kind} field needs the other kind of profile")


def _values(definition: Definition, loan: Mapping[str, Value]) -> tuple[Value, ...]:
    checked = Checks(definition).loan(loan)
    if checked.problems:
        raise ValueError(f"a synthetic loan is not valid: {checked.problems[0]}")
    return checked.values


def _record(definition: Definition, row: Sequence[Value]) -> dict[str, Value]:
    return dict(zip(definition.names, row, strict=True))


def _golden(
    definition: Definition, model: Scorecard | OnnxModel, policy: Policy, examples: Loans
) -> Iterator[Golden]:
    margins: Numbers = np.asarray(model.margins(examples))
    for row, margin in zip(examples.rows(), margins.tolist(), strict=True):
        yield Golden(
            _record(definition, row),
            margin,
            arithmetic.probability(margin),
            policy.late(margin),
            BANDS[int(policy.bands_many(np.array([margin]))[0])],
        )
