"""A bundle: a deployable version of a model, loaded.

Nothing in a bundle is executed or unpickled. It loads only if every digest matches and the golden
examples give the same results as when it was made. Otherwise a BundleError gives the reason.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from peerloan.loan import Checks, Definition, Loans, LoanWarning, Value
from peerloan.model import BANDS, Flip, Reason, Reasons, arithmetic, find_flips
from peerloan.model.encoding import Encoding
from peerloan.model.onnx_model import OnnxModel
from peerloan.model.reference_profile import NumberProfile, ReferenceProfile
from peerloan.model.scorecard import Scorecard
from peerloan.registry.batch import Decisions, decide_many
from peerloan.registry.manifest import (
    SAMPLE_WARNING,
    BundleError,
    Manifest,
    decode,
    decode_definition,
    read_file,
    read_manifest,
)
from peerloan.stats.arrays import Numbers

# Tolerance for a probability of an ONNX version on another kind of processor or another runtime.
ONNX_TOLERANCE = 1e-6


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A decision on one loan. `contributions` and `reasons` are None if not requested."""

    margin: float
    probability: float
    late: bool
    band: str
    contributions: tuple[float, ...] | None
    reasons: list[Reason] | None


class Bundle:
    """A loaded version, which makes decisions. Raises BundleError if the files are not valid.

    Thread-safe: nothing changes after it is loaded.
    """

    def __init__(self, manifest: Manifest, digest: str, files: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self.digest = digest
        self.version = manifest.version
        self.policy = manifest.policy
        self.model: Scorecard | OnnxModel
        try:
            self.definition = decode_definition(files)
            self.profile = decode(files["profile.json"], "profile.json", ReferenceProfile)
            manifest.check(self.definition)
            _check_profile(self.profile, self.definition)
            if manifest.kind == "scorecard":
                self.model = decode(files["scorecard.json"], "scorecard.json", Scorecard)
                self.model.check(self.definition)
            else:
                self.model = OnnxModel(
                    files["model.onnx"],
                    decode(files["encoding.json"], "encoding.json", Encoding),
                    self.definition,
                    Loans.of(self.definition, self._rows(files["background.json"])),
                    manifest.files["model.onnx"].sha256,
                    manifest.calibration,
                )
            points = self.model.points if isinstance(self.model, Scorecard) else None
            self._reasons = Reasons(self.definition, self.profile, points)
            self._verify_golden()
        except Exception as error:  # on hostile data, the ONNX runtime raises many kinds of errors
            raise BundleError(f"{self.version}: {' '.join(str(error).split())}") from error

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read and verify the folder of a version. Raises BundleError."""
        manifest, digest = read_manifest(folder)
        files = {name: read_file(folder, name, entry) for name, entry in manifest.files.items()}
        return cls(manifest, digest, files)

    @property
    def base(self) -> float:
        """The margin that contributions are added to."""
        return self.model.base

    @cached_property
    def warnings(self) -> list[LoanWarning]:
        """The warnings of every decision of this version."""
        return [LoanWarning(None, "sample_model", SAMPLE_WARNING)] if self.manifest.sample else []

    @property
    def is_additive(self) -> bool:
        """Whether the model is a sum of contributions, so that reasons take no extra time."""
        return isinstance(self.model, Scorecard)

    @property
    def is_exact(self) -> bool:
        """Whether this machine reproduces decisions bit for bit.

        It always does for a scorecard. For an ONNX version it does with the same release of the
        runtime and the same kind of processor as when the version was made.
        """
        libraries = self.manifest.libraries
        return isinstance(self.model, Scorecard) or (
            libraries.get("onnxruntime") == self.model.runtime
            and libraries.get("processor") == platform.machine()
        )

    def decide(self, values: Sequence[Value], explain: bool = True) -> Decision:
        """Decide on one loan. `values` are checked, and in the order of the fields."""
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

    def flips(self, values: Sequence[Value]) -> list[Flip]:
        """Find the values of each field that change the decision by themselves: `find_flips`."""
        return find_flips(self.model, self.policy, self.definition, self.profile, values)

    def decide_many(self, loans: Loans, explain: bool | Iterable[int] = True) -> Decisions:
        """Decide on many loans at once; each row equals the result of `decide`.

        `explain`: whether to compute contributions and reasons, or the positions of the loans that
        need them. A scorecard takes no extra time, so it explains all loans if any position is
        listed. An ONNX version takes milliseconds for each loan. It requests the next position only
        after it has explained the previous loan, so an iterator can stop at a deadline or report
        progress.

        Thread-safe: a loaded bundle does not change. Raises OnnxTimeLimit if an ONNX model takes
        too long; a scorecard raises nothing.
        """
        return decide_many(self.model, self.policy, loans, explain)

    def unpack(
        self,
        decisions: Decisions,
        values: Sequence[Sequence[Value]],
        contributions: bool = True,
    ) -> list[Decision]:
        """Convert decisions in columns to a list with one decision for each loan.

        If `contributions` is false, they are None in every decision. `values` are the values of the
        loans, as returned by `Loans.values_by_field`.
        """
        shares: list[tuple[float, ...] | None] = [None] * len(decisions.margins)
        reasons: list[list[Reason] | None] = [None] * len(decisions.margins)
        if decisions.contributions is not None and decisions.reasons is not None:
            explained = decisions.explained.tolist()
            loan_reasons = self._reasons.of_batch(decisions.reasons, values)
            reasons = [
                reasons_of_loan if is_explained else None
                for reasons_of_loan, is_explained in zip(loan_reasons, explained, strict=True)
            ]
            if contributions:
                rows = decisions.contributions.tolist()
                shares = [
                    tuple(row) if is_explained else None
                    for row, is_explained in zip(rows, explained, strict=True)
                ]
        return [
            *map(
                Decision,
                decisions.margins.tolist(),
                decisions.probabilities.tolist(),
                decisions.late.tolist(),
                [BANDS[band] for band in decisions.bands.tolist()],
                shares,
                reasons,
            )
        ]

    def score_many(self, loans: Loans) -> tuple[Numbers, Numbers | None]:
        """Return margins (n,) and, for a scorecard, contributions (n, fields)."""
        if isinstance(self.model, Scorecard):
            return self.model.score_many(loans)
        return self.model.margins(loans), None

    def sentence(self, position: int, value: Value) -> str:
        """Return the sentence of a reason about a value of the field at this position."""
        return self._reasons.sentence(position, value)

    def _rows(self, background: bytes) -> list[tuple[Value, ...]]:
        return [
            _values(self.definition, loan)
            for loan in decode(background, "background.json", list[dict[str, float | str | None]])
        ]

    def _verify_golden(self) -> None:
        tolerance = 0.0 if self.manifest.kind == "scorecard" else ONNX_TOLERANCE
        for i, golden in enumerate(self.manifest.golden, 1):
            decision = self.decide(_values(self.definition, golden.loan), explain=False)
            numbers = (
                ("probability", decision.probability, golden.probability, tolerance),
                # An ONNX version computes a probability, and derives the margin from it.
                ("probability", arithmetic.probability(golden.margin), golden.probability, 1e-9),
                ("margin", decision.margin, golden.margin, 0.0 if tolerance == 0 else math.inf),
            )
            for name, actual, expected, largest_difference in numbers:
                if not abs(actual - expected) <= largest_difference:
                    raise _not_reproduced(i, name, actual, expected)
            for name, result, expected_result in (
                ("late", decision.late, golden.late),
                ("band", decision.band, golden.band),
            ):
                if result != expected_result:
                    raise _not_reproduced(i, name, result, expected_result)


def _not_reproduced(number: int, name: str, actual: object, expected: object) -> BundleError:
    return BundleError(
        f"golden example {number} does not reproduce: {name}: expected {expected}, as in the "
        f"manifest, given {actual}"
    )


def _check_profile(profile: ReferenceProfile, definition: Definition) -> None:
    profile.check(definition)
    for field, column in zip(definition.fields, profile.columns, strict=True):
        if field.is_number != isinstance(column, NumberProfile):
            expected = "number" if field.is_number else "level"
            raise ValueError(
                f"profile of {field.name}: expected a {expected} profile, because the field is of "
                f"the kind {field.kind}"
            )


def _values(definition: Definition, loan: Mapping[str, Value]) -> tuple[Value, ...]:
    # exact: the loans of a bundle have the definition's own spelling of values.
    checked = Checks(definition, exact=True).loan(loan)
    if checked.problems:
        first = checked.problems[0]
        raise ValueError(
            f"synthetic loan: {first.field}: expected {first.expected}, given {first.given}"
        )
    return checked.values
