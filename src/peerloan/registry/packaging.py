"""Assemble a new version, from a trained estimator or from another version."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from peerloan.loan import Definition, Loans, Value
from peerloan.model import arithmetic
from peerloan.model.arithmetic import IDENTITY, PlattCalibration
from peerloan.model.encoding import Encoding
from peerloan.model.onnx_model import OnnxModel, background_size
from peerloan.model.policy import BANDS, OperatingPoint, Policy
from peerloan.model.reference_profile import ReferenceProfile
from peerloan.model.scorecard import Scorecard
from peerloan.registry.batch import decide_many
from peerloan.registry.bundle import Bundle
from peerloan.registry.extras import definition_parts
from peerloan.registry.manifest import (
    FORMAT,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    BundleError,
    CandidateScore,
    FileEntry,
    GoldenExample,
    Manifest,
    TrainedOn,
    check_sizes,
    decode,
    read_file,
    read_manifest,
)

_GOLDEN_EXAMPLES = 20

# Renders a version's documents and returns them by file name. Its argument is the manifest; only
# `files` is still empty.
DocumentWriter = Callable[[Manifest], Mapping[str, str]]


def write_no_documents(_manifest: Manifest) -> Mapping[str, str]:
    """Render nothing."""
    return {}


@dataclass(frozen=True)
class OnnxParts:
    """An ONNX estimator that is not part of a bundle: its graph, encoding and calibration."""

    graph: bytes
    encoding: Encoding
    calibration: PlattCalibration = IDENTITY


@dataclass(frozen=True)
class ValidationFigures:
    """Figures of a version on loans outside its training set. The manifest stores all of them."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    candidates: tuple[CandidateScore, ...]
    trade_off: tuple[OperatingPoint, ...]


@dataclass(frozen=True)
class Draft:
    """A version without a name: its manifest, its files, and the renderer of its documents."""

    manifest: Manifest
    files: dict[str, bytes]
    write_documents: DocumentWriter = write_no_documents

    def named(self, version: str, created: str) -> tuple[dict[str, bytes], Bundle]:
        """Complete the version under its reserved name.

        Returns all files, the manifest last, and the bundle, opened and verified.
        """
        manifest = msgspec.structs.replace(self.manifest, version=version, created=created)
        documents = self.write_documents(manifest)
        files = self.files | {name: text.encode() for name, text in documents.items()}
        manifest = msgspec.structs.replace(manifest, files=_entries(files))
        content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        try:
            # Decode it as a reader will. That fails for a NaN, for example, which JSON can't hold.
            manifest = decode(content, MANIFEST, Manifest)
            check_sizes(manifest.files)
            if len(content) > MAX_MANIFEST_BYTES:
                raise BundleError(
                    f"{MANIFEST}: expected at most {MAX_MANIFEST_BYTES:,} bytes, given "
                    f"{len(content):,}"
                )
        except BundleError as error:
            raise BundleError(f"{version}: {error}") from None
        bundle = Bundle(manifest, hashlib.sha256(content).hexdigest(), files)
        return files | {MANIFEST: content}, bundle


def draft(
    *,
    candidate: str,
    definition: Definition,
    estimator: Scorecard | OnnxParts,
    policy: Policy,
    profile: ReferenceProfile,
    trained_on: TrainedOn,
    validation: ValidationFigures,
    libraries: dict[str, str],
    write_documents: DocumentWriter = write_no_documents,
    recalibrated_on: TrainedOn | None = None,
) -> Draft:
    """Make a draft from a trained estimator and the other parts of a version."""
    parts: dict[str, Any] = definition_parts(definition) | {"profile.json": profile}
    files: dict[str, bytes] = {}
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
        metrics=validation.metrics,
        policy=policy,
        libraries=libraries | {"processor": platform.machine()},
        golden=tuple(_golden(definition, model, policy, examples)),
        files={},
        calibration=calibration,
        intervals=validation.intervals,
        candidates=validation.candidates,
        trade_off=validation.trade_off,
        recalibrated_on=recalibrated_on,
    )
    return Draft(manifest, files, write_documents)


def with_policy(
    bundle: Bundle, folder: Path, policy: Policy, write_documents: DocumentWriter
) -> Draft:
    """Make a draft of a version with another policy.

    All files are copied unchanged, except for the documents, which are rendered again.
    """
    files = {name: read_file(folder, name, entry) for name, entry in bundle.manifest.files.items()}
    examples = bundle.profile.draw(bundle.definition, _GOLDEN_EXAMPLES, seed=2)
    manifest = msgspec.structs.replace(
        bundle.manifest.with_policy(policy),
        golden=tuple(_golden(bundle.definition, bundle.model, policy, examples)),
    )
    return Draft(manifest, files, write_documents)


def read_onnx_parts(folder: Path) -> OnnxParts:
    """Read the estimator of an ONNX version. Raises BundleError."""
    manifest, _ = read_manifest(folder)
    if manifest.kind != "onnx":
        raise BundleError(f"{folder.name}: expected an ONNX version, given a {manifest.kind}")
    graph, content = (
        read_file(folder, name, manifest.files[name]) for name in ("model.onnx", "encoding.json")
    )
    return OnnxParts(graph, decode(content, "encoding.json", Encoding), manifest.calibration)


def _entries(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    return {
        name: FileEntry(len(content), hashlib.sha256(content).hexdigest())
        for name, content in sorted(files.items())
    }


def _record(definition: Definition, row: Sequence[Value]) -> dict[str, Value]:
    return dict(zip(definition.names, row, strict=True))


def _golden(
    definition: Definition, model: Scorecard | OnnxModel, policy: Policy, examples: Loans
) -> Iterator[GoldenExample]:
    """Yield the golden examples: synthetic loans with the model's results."""
    decisions = decide_many(model, policy, examples, explain=False)
    columns = (decisions.margins, decisions.probabilities, decisions.late, decisions.bands)
    for row, margin, probability, late, band in zip(
        examples.rows(), *(column.tolist() for column in columns), strict=True
    ):
        yield GoldenExample(_record(definition, row), margin, probability, late, BANDS[band])
