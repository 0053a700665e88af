"""A bundle: one deployable version of a model, loaded.

Nothing in it is executed or unpickled. It loads only if every digest matches and its golden
examples reproduce; otherwise a BundleError gives the reason.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from peerloan.loan import Checks, Definition, Loans, LoanWarning, Value
from peerloan.model import BANDS, Reason, Reasons, arithmetic
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
    read_file,
    read_manifest,
)
from peerloan.stats.arrays import Numbers

# Tolerance for a probability of an ONNX version on another kind of processor or another runtime.
ONNX_TOLERANCE = 1e-6


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A version's decision on one loan. `contributions` and `reasons` are None if not requested."""

    margin: float
    probability: float
    late: bool
    band: str
    contributions: tuple[float, ...] | None
    reasons: list[Reason] | None


class Bundle:
    """One loaded version, which makes decisions."""

    def __init__(self, manifest: Manifest, digest: str, files: Mapping[str, bytes]) -> None:
        self.manifest = manifest
        self.digest = digest
        self.version = manifest.version
        self.policy = manifest.policy
        self.model: Scorecard | OnnxModel
        try:
            self.definition = decode(files["loan.json"], "loan.json", Definition)
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
        except Exception as error:  # the runtime's errors on foreign data have no common base
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
        """Whether contributions, and so reasons, come at no extra cost."""
        return isinstance(self.model, Scorecard)

    @property
    def is_exact(self) -> bool:
        """Whether decisions reproduce bit for bit on this machine.

        A scorecard's always do. An ONNX version's do under the runtime and on the kind of processor
        that it was made with.
        """
        made = self.manifest.libraries
        return isinstance(self.model, Scorecard) or (
            made.get("onnxruntime") == self.model.runtime
            and made.get("processor") == platform.machine()
        )

    def decide(self, values: Sequence[Value], explain: bool = True) -> Decision:
        """Decide on one loan, given its checked values in the order of the fields."""
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

    def decide_many(self, loans: Loans, explain: bool | Iterable[int] = True) -> Decisions:
        """Decide on many loans at once; each row equals the result of `decide`.

        `explain`: whether to compute contributions and reasons, or the positions of the loans that
        need them. A scorecard explains every loan at no extra cost, whichever positions are listed;
        an ONNX version takes milliseconds a loan. It takes the next position only after it has
        explained the previous loan, so an iterator can stop at a deadline or report progress.
        """
        return decide_many(self.model, self.policy, loans, explain)

    def unpack(
        self,
        decisions: Decisions,
        values: Sequence[Sequence[Value]],
        contributions: bool = True,
    ) -> list[Decision]:
        """Convert decisions in columns to a list with one decision for each loan.

        Without `contributions` they are None in every decision. `values` are those of the loans,
        as `Loans.values_by_field` makes them.
        """
        shares: list[tuple[float, ...] | None] = [None] * len(decisions.margins)
        reasons: list[list[Reason] | None] = [None] * len(decisions.margins)
        if decisions.contributions is not None and decisions.reasons is not None:
            explained = decisions.explained.tolist()
            made = self._reasons.of_batch(decisions.reasons, values)
            reasons = [own if known else None for own, known in zip(made, explained, strict=True)]
            if contributions:
                rows = decisions.contributions.tolist()
                shares = [
                    tuple(row) if known else None
                    for row, known in zip(rows, explained, strict=True)
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
        """Return margins (n,), and contributions (n, features) if they come at no extra cost."""
        if isinstance(self.model, Scorecard):
            return self.model.score_many(loans)
        return self.model.margins(loans), None

    def sentence(self, position: int, value: Value) -> str:
        """Describe a reason about a value of the field at this position."""
        return self._reasons.sentence(position, value)

    def _rows(self, background: bytes) -> list[tuple[Value, ...]]:
        return [
            _values(self.definition, loan)
            for loan in decode(background, "background.json", list[dict[str, float | str | None]])
        ]

    def _verify_golden(self) -> None:
        tolerance = 0.0 if self.manifest.kind == "scorecard" else ONNX_TOLERANCE
        for i, golden in enumerate(self.manifest.golden, 1):
            found = self.decide(_values(self.definition, golden.loan), explain=False)
            pairs = (
                ("probability", found.probability, golden.probability, tolerance),
                # An ONNX runtime computes a probability; the margin is derived from it.
                ("probability", arithmetic.probability(golden.margin), golden.probability, 1e-9),
                ("margin", found.margin, golden.margin, 0.0 if tolerance == 0 else math.inf),
            )
            for what, now, then, near in pairs:
                if not abs(now - then) <= near:
                    raise _not_reproduced(i, what, now, then)
            for what, says, said in (
                ("late", found.late, golden.late),
                ("band", found.band, golden.band),
            ):
                if says != said:
                    raise _not_reproduced(i, what, says, said)


def _not_reproduced(number: int, what: str, now: object, then: object) -> BundleError:
    return BundleError(
        f"golden example {number} does not reproduce: {what} {now}, the manifest says {then}"
    )


def _check_profile(profile: ReferenceProfile, definition: Definition) -> None:
    profile.check(definition)
    for field, column in zip(definition.fields, profile.columns, strict=True):
        if field.is_number != isinstance(column, NumberProfile):
            raise ValueError(f"{field.name}: a {field.kind} field needs the other kind of profile")


def _values(definition: Definition, loan: Mapping[str, Value]) -> tuple[Value, ...]:
    # The bundle's golden loans use its own spelling of values.
    checked = Checks(definition, exact=True).loan(loan)
    if checked.problems:
        first = checked.problems[0]
        raise ValueError(
            f"a synthetic loan is not valid: {first.field}: expected {first.expected}, "
            f"given {first.given}"
        )
    return checked.values
