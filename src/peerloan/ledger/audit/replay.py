"""Replay: compute stored decisions again with the stored versions, and compare.

Everything that follows from the version and the loan is compared bit for bit: margin, probability,
yes or no, threshold, band, reasons, and warnings. An ONNX version that runs under another runtime
or kind of processor than it was made with may differ by 1e-6 in the probability. Such decisions are
counted as `near`, not as identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import func, select

from peerloan import uuid7
from peerloan.database.engine import Database
from peerloan.database.tables import challenges, decisions, versions
from peerloan.ledger.queries import in_time_range
from peerloan.ledger.records import StoredDecision, Version, warnings_json
from peerloan.ledger.stored_inputs import InputReader, InputUnreadable
from peerloan.ledger.write.reason_json import ReasonTexts
from peerloan.loan import Checked, Loans, LoanWarning
from peerloan.model import BANDS, Reason
from peerloan.registry import ONNX_TOLERANCE, Bundle, Decisions, RegistryError, Store

# At most this many faults of a kind are shown; the others are counted.
SHOWN = 20
_pack = msgspec.msgpack.Encoder().encode
_reasons = msgspec.json.Decoder(list[Reason])
_texts = msgspec.json.Decoder(list[str])


class Replayed(NamedTuple):
    """The values of a decision that follow from its version and loan."""

    margin: float
    probability: float
    late: bool
    threshold: float
    band: int
    reasons: str | None
    warnings: str | None


class Difference(NamedTuple):
    """A field in which a decision differs: the value stored (`kept`) and computed (`found`)."""

    id: str
    field: str
    kept: object
    found: object


class Unreadable(NamedTuple):
    """A decision whose inputs can't be read with its version."""

    id: str
    why: str


@dataclass
class ReplayReport:
    """The result of a replay.

    `near` decisions differ by at most 1e-6 in the probability, which is allowed for ONNX versions
    elsewhere. `different` counts by field, `missing` by version.
    """

    decisions: int = 0
    identical: int = 0
    near: int = 0
    different: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    unreadable: int = 0
    unreadable_shown: list[Unreadable] = field(default_factory=list)
    missing: Counter[Version] = field(default_factory=Counter)
    why_missing: dict[Version, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every decision was reproduced."""
        return self.decisions == self.identical + self.near


class Replay:
    """Replays decisions with the versions of a store, and collects a report."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._replayers: dict[Version, _Replayer | None] = {}
        self.report = ReplayReport()

    def add(self, batch: Sequence[StoredDecision]) -> None:
        """Replay a batch of decisions."""
        by_version: dict[Version, list[StoredDecision]] = {}
        for each in batch:
            by_version.setdefault(each.version, []).append(each)
        self.report.decisions += len(batch)
        for version, own in by_version.items():
            if version not in self._replayers:
                self._replayers[version] = self._open(version)
            replayer = self._replayers[version]
            if replayer is None:
                self.report.missing[version] += len(own)
            else:
                replayer.replay(own, self.report)

    def _open(self, version: Version) -> _Replayer | None:
        try:
            bundle = self._store.load(version.version)
        except RegistryError as error:
            self.report.why_missing[version] = str(error)
            return None
        if bundle.digest != version.digest:
            self.report.why_missing[version] = (
                f"{version.version}: is not the version that decided: its digest is "
                f"{bundle.digest[:12]}…, then it was {version.digest[:12]}…"
            )
            return None
        return _Replayer(bundle)


class _Replayer:
    """Replays the decisions of one version."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._inputs = InputReader(bundle.definition)
        self._exact_inputs = InputReader(bundle.definition, exact=True)
        self._texts = ReasonTexts(bundle)
        self._version_warnings = warnings_json(bundle.warnings)

    def replay(self, batch: Sequence[StoredDecision], report: ReplayReport) -> None:
        """Compute decisions of this version again, and add the comparison to the report."""
        readable: list[StoredDecision] = []
        loans: list[Checked] = []
        for each in batch:
            try:
                loans.append(self._inputs.read(each.inputs))
            except InputUnreadable as error:
                report.unreadable += 1
                if len(report.unreadable_shown) < SHOWN:
                    report.unreadable_shown.append(Unreadable(uuid7.text(each.id), str(error)))
            else:
                readable.append(each)
        for each, loan, found in zip(readable, loans, self._decide(readable, loans), strict=True):
            kept = Replayed(
                *(each.margin, each.probability, each.late, each.version.threshold),
                *(each.band, each.reasons, each.warnings),
            )
            if self._same(kept, found, report):
                continue
            before = self._decide_as_before(each, loan)
            if before is not None:
                if self._same(kept, before, report):
                    continue
                found = min(found, before, key=lambda other: _differences(kept, other))
            _add_differences(report, each, kept, found)

    def _decide_as_before(self, decision: StoredDecision, loan: Checked) -> Replayed | None:
        """Decide as earlier releases did, to which `true` and `True` were two values.

        None if that makes no difference.
        """
        try:
            exact = self._exact_inputs.read(decision.inputs)
        except InputUnreadable:
            return None
        if exact.values == loan.values:
            return None
        (replayed,) = self._decide([decision], [exact])
        return replayed

    def _same(self, kept: Replayed, found: Replayed, report: ReplayReport) -> bool:
        """Return whether a decision was reproduced; if so, count it."""
        if _pack(kept) == _pack(found):
            report.identical += 1
        elif not self._bundle.is_exact and _near(kept, found):
            report.near += 1
        else:
            return False
        return True

    def _decide(self, some: Sequence[StoredDecision], loans: Sequence[Checked]) -> list[Replayed]:
        """What the version decides on these loans now."""
        bundle = self._bundle
        columns = Loans.of(bundle.definition, [loan.values for loan in loans])
        # Only reasons that were asked for: an ONNX version takes milliseconds for a loan's.
        asked = [i for i, each in enumerate(some) if each.reasons is not None]
        decisions = bundle.decide_many(columns, explain=asked)
        found = [
            *map(
                Replayed,
                *(decisions.margins.tolist(), decisions.probabilities.tolist()),
                *(decisions.late.tolist(), [bundle.policy.threshold] * len(some)),
                *(decisions.bands.tolist(), self._reasons(decisions)),
                (
                    self._warnings(each.warnings, loan.warnings)
                    for each, loan in zip(some, loans, strict=True)
                ),
            )
        ]
        if not bundle.is_additive:
            for i, (each, loan) in enumerate(zip(some, loans, strict=True)):
                # It was decided on alone, perhaps: a runtime may add in another order then.
                if found[i].margin != each.margin:
                    one = bundle.decide(loan.values, explain=False)
                    found[i] = found[i]._replace(
                        margin=one.margin,
                        probability=one.probability,
                        late=one.late,
                        band=BANDS.index(one.band),
                    )
        return found

    def _warnings(self, kept: str | None, of_loan: list[LoanWarning]) -> str | None:
        """A loan's warnings as the ledger would store them; `kept` itself if these agree."""
        found = self._version_warnings
        if of_loan:
            found = warnings_json(of_loan + self._bundle.warnings)
        return kept if _warnings_agree(kept, found) else found

    def _reasons(self, decisions: Decisions) -> list[str | None]:
        if decisions.reasons is None:
            return [None] * len(decisions.margins)
        texts = self._texts.of_many(decisions.reasons)
        return [
            text if is_explained else None
            for text, is_explained in zip(texts, decisions.explained.tolist(), strict=True)
        ]


def count_decisions(database: Database, since_ms: int = 0, until_ms: int | None = None) -> int:
    """Count the decisions of a time, with purged ones. Raises LedgerUnavailable."""
    rows = select(func.count()).where(in_time_range(decisions.c.id, since_ms, until_ms))
    with database.reading() as connection:
        return int(connection.execute(rows).scalar_one())


def refers_to(database: Database, version: str) -> int:
    """Count the decisions that need a version to be shown or replayed. Raises LedgerError.

    A version is needed as champion or as challenger.
    """
    if database.is_sqlite and not database.file.exists():
        return 0
    database.check()
    numbers = select(versions.c.number).where(versions.c.version == version)
    with database.reading() as connection:
        return sum(
            connection.execute(select(func.count()).where(each)).scalar_one()
            for each in (
                # A purged decision has no band, and there is an index with the band.
                decisions.c.version.in_(numbers) & decisions.c.band.is_not(None),
                challenges.c.version.in_(numbers),
            )
        )


def _warnings_agree(kept: str | None, found: str | None) -> bool:
    """Return whether two texts of warnings are the same, but for suggested levels.

    A request's suggestions are limited, so they do not follow from the loan alone.
    """
    if kept is None or found is None or kept == found:
        return kept == found
    try:
        before = _texts.decode(kept)
    except msgspec.MsgspecError:
        return False
    now = _texts.decode(found)
    return len(before) == len(now) and all(map(_sentences_agree, before, now))


def _sentences_agree(kept: str, found: str) -> bool:
    return kept == found or (kept.startswith(f"{found} (did you mean ") and kept.endswith("?)"))


def _near(kept: Replayed, found: Replayed) -> bool:
    """Return whether two decisions differ only by the rounding of a runtime."""
    try:
        return (
            abs(kept.probability - found.probability) <= ONNX_TOLERANCE
            and kept[2:5] == found[2:5]
            and kept.warnings == found.warnings
            and _without_contributions(kept.reasons) == _without_contributions(found.reasons)
        )
    except (TypeError, msgspec.MsgspecError):
        return False


def _without_contributions(reasons: str | None) -> list[tuple[object, ...]] | None:
    """Parse reasons, leaving out their contributions."""
    if reasons is None:
        return None
    return [(each.feature, each.value, each.sentence) for each in _reasons.decode(reasons)]


def _differences(kept: Replayed, found: Replayed) -> int:
    return sum(_pack(then) != _pack(now) for then, now in zip(kept, found, strict=True))


def _add_differences(
    report: ReplayReport, decision: StoredDecision, kept: Replayed, found: Replayed
) -> None:
    for name, then, now in zip(Replayed._fields, kept, found, strict=True):
        if _pack(then) == _pack(now):
            continue
        report.different[name] += 1
        if len(report.differences) < SHOWN:
            shown = map(_band, (then, now)) if name == "band" else (then, now)
            report.differences.append(Difference(uuid7.text(decision.id), name, *shown))


def _band(position: Any) -> object:
    known = isinstance(position, int) and 0 <= position < len(BANDS)
    return BANDS[position] if known else position
