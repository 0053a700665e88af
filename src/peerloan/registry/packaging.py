"""Putting a new version together, from what training made or from another version."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from peerloan.loan import Definition, Loans, Value
from peerloan.model import arithmetic
from peerloan.model.arithmetic import IDENTITY, Calibration
from peerloan.model.encoding import Encoding
from peerloan.model.onnx_model import OnnxModel, background_size
from peerloan.model.policy import BANDS, Policy, TradeOff
from peerloan.model.reference_profile import Profile
from peerloan.model.scorecard import Scorecard
from peerloan.registry.batch import decide_many
from peerloan.registry.bundle import Bundle
from peerloan.registry.manifest import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BundleError,
    FileEntry,
    Golden,
    Manifest,
    Score,
    TrainedOn,
    check_sizes,
    decode,
    read_file,
    read_manifest,
)

# A document is written before its version has a name: these stand where name and time belong.
VERSION_MARK, CREATED_MARK = "\N{REPLACEMENT CHARACTER}version", "\N{REPLACEMENT CHARACTER}created"
_DOCUMENTS = (".html", ".md")
_GOLDEN_EXAMPLES = 20


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


@dataclass(frozen=True)
class Draft:
    """A version before it has a name: all of its files, and the manifest's other parts."""

    manifest: Manifest
    files: dict[str, bytes]

    def named(self, version: str, created: str) -> tuple[dict[str, bytes], Bundle]:
        """All files under this name, the manifest last, and the bundle, opened and verified."""
        marks = {VERSION_MARK: version, CREATED_MARK: created}
        files = {
            name: _marked(content, marks) if name.endswith(_DOCUMENTS) else content
            for name, content in self.files.items()
        }
        manifest = msgspec.structs.replace(
            self.manifest, version=version, created=created, files=_entries(files)
        )
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        try:
            # As it will be read: a NaN, for one, has no place in JSON.
            manifest = decode(content, MANIFEST, Manifest)
            check_sizes(manifest.files)
            if len(content) > MAX_MANIFEST_BYTES:
                expected = f"expected at most {MAX_MANIFEST_BYTES:,} bytes"
                raise BundleError(f"{MANIFEST}: {expected}, given {len(content):,}")
        except BundleError as error:
            raise BundleError(f"{version}: {error}") from None
        bundle = Bundle(manifest, hashlib.sha256(content).hexdigest(), files)
        return files | {MANIFEST: content}, bundle


def _marked(content: bytes, marks: Mapping[str, str]) -> bytes:
    for mark, text in marks.items():
        content = content.replace(mark.encode(), text.encode())
    return content


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
        files={},
        calibration=calibration,
        intervals=judged.intervals,
        candidates=judged.candidates,
        trade_off=judged.trade_off,
    )
    return Draft(manifest, files)


def with_policy(
    bundle: Bundle, folder: Path, policy: Policy, documents: Mapping[str, str]
) -> Draft:
    """A version's draft under another policy; `documents` replace those of the same name."""
    files = {
        name: read_file(folder, name, entry) for name, entry in bundle.manifest.files.items()
    } | {name: text.encode() for name, text in documents.items()}
    examples = bundle.profile.draw(bundle.definition, _GOLDEN_EXAMPLES, seed=2)
    manifest = msgspec.structs.replace(
        bundle.manifest.under(policy),
        golden=tuple(_golden(bundle.definition, bundle.model, policy, examples)),
    )
    return Draft(manifest, files)


def read_onnx_parts(folder: Path) -> OnnxParts:
    """An ONNX version's estimator as it was drafted; raises BundleError."""
    manifest, _ = read_manifest(folder)
    if manifest.kind != "onnx":
        raise BundleError(f"{folder.name}: is a {manifest.kind}, and holds no ONNX")
    graph, encoding = (
        read_file(folder, name, manifest.files[name]) for name in ("model.onnx", "encoding.json")
    )
    parts = decode(encoding, "encoding.json", Encoding)
    return OnnxParts(graph, parts, manifest.calibration)


def _entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
    }


def _record(definition: Definition, row: Sequence[Value]) -> dict[str, Value]:
    return dict(zip(definition.names, row, strict=True))


def _golden(
    definition: Definition, model: Scorecard | OnnxModel, policy: Policy, examples: Loans
) -> Iterator[Golden]:
    found = decide_many(model, policy, examples, explain=False)
    columns = (found.margins, found.probabilities, found.late, found.bands)
    for row, margin, probability, late, band in zip(
        examples.rows(), *(column.tolist() for column in columns), strict=True
    ):
        yield Golden(_record(definition, row), margin, probability, late, BANDS[band])
