"""Replay: compute stored decisions again with the versions in the store, and compare them.

All values that follow from the version and the loan are compared bit for bit: margin, probability,
decision, threshold, band, reasons, and warnings. The probability of an ONNX version may differ by
1e-6 under another runtime or kind of processor than the one that it was made with. Such decisions
are counted as `near`, not as identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
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

# At most this many differences, and unreadable decisions, are shown; the others are counted.
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
    """A field in which a decision differs: the stored value (`kept`), the computed one (`found`).

    The names of the fields are keys of the command's JSON.
    """

    id: str
    field: str
    kept: object
    found: object


class Unreadable(NamedTuple):
    """A decision whose inputs can't be read by its version's definition, and the reason."""

    id: str
    why: str


@dataclass
class ReplayReport:
    """The result of a replay.

    `near` counts decisions that differ by at most 1e-6 in the probability, which is allowed for
    ONNX versions. `different` has counts by field, `missing` by version; a version is missing if it
    is not in the store as it was. `why_missing` has the reasons.
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
    """Replays decisions with the versions of a store, and collects a report. Not thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._replayers: dict[Version, _Replayer | None] = {}
        self.report = ReplayReport()

    def add(self, batch: Sequence[StoredDecision]) -> None:
        """Replay a batch of decisions."""
        by_version: dict[Version, list[StoredDecision]] = {}
        for decision in batch:
            by_version.setdefault(decision.version, []).append(decision)
        self.report.decisions += len(batch)
        for version, of_version in by_version.items():
            if version not in self._replayers:
                self._replayers[version] = self._open(version)
            replayer = self._replayers[version]
            if replayer is None:
                self.report.missing[version] += len(of_version)
            else:
                replayer.replay(of_version, self.report)

    def _open(self, version: Version) -> _Replayer | None:
        """Load a version; None if it is missing, which the report then explains."""
        try:
            bundle = self._store.load(version.version)
        except RegistryError as error:
            self.report.why_missing[version] = str(error)
            return None
        if bundle.digest != version.digest:
            self.report.why_missing[version] = (
                f"{version.version}: is not the version that decided: expected the digest "
                f"{version.digest[:12]}…, given {bundle.digest[:12]}…"
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
        for decision in batch:
            try:
                loans.append(self._inputs.read(decision.inputs))
            except InputUnreadable as error:
                report.unreadable += 1
                if len(report.unreadable_shown) < SHOWN:
                    report.unreadable_shown.append(Unreadable(uuid7.text(decision.id), str(error)))
            else:
                readable.append(decision)
        replayed = self._decide(readable, loans)
        for decision, loan, computed in zip(readable, loans, replayed, strict=True):
            stored = Replayed(
                *(decision.margin, decision.probability, decision.late, decision.version.threshold),
                *(decision.band, decision.reasons, decision.warnings),
            )
            if self._is_reproduced(stored, computed, report):
                continue
            as_earlier = self._decide_as_earlier(decision, loan)
            if as_earlier is not None:
                if self._is_reproduced(stored, as_earlier, report):
                    continue
                computed = min(computed, as_earlier, key=partial(_count_differences, stored))
            _add_differences(report, decision, stored, computed)

    def _decide_as_earlier(self, decision: StoredDecision, loan: Checked) -> Replayed | None:
        """Decide as earlier releases did, which treated `true` and `True` as two values.

        None if that makes no difference for this loan.
        """
        try:
            exact = self._exact_inputs.read(decision.inputs)
        except InputUnreadable:
            return None
        if exact.values == loan.values:
            return None
        (replayed,) = self._decide([decision], [exact])
        return replayed

    def _is_reproduced(self, stored: Replayed, computed: Replayed, report: ReplayReport) -> bool:
        """Return whether a decision was reproduced; if so, count it."""
        if _pack(stored) == _pack(computed):
            report.identical += 1
        elif not self._bundle.is_exact and _is_near(stored, computed):
            report.near += 1
        else:
            return False
        return True

    def _decide(self, stored: Sequence[StoredDecision], loans: Sequence[Checked]) -> list[Replayed]:
        """Compute the version's decisions on these loans."""
        bundle = self._bundle
        columns = Loans.of(bundle.definition, [loan.values for loan in loans])
        # Explain only decisions with stored reasons: an ONNX version takes milliseconds for a loan.
        explained = [i for i, decision in enumerate(stored) if decision.reasons is not None]
        decisions = bundle.decide_many(columns, explain=explained)
        computed = [
            *map(
                Replayed,
                *(decisions.margins.tolist(), decisions.probabilities.tolist()),
                *(decisions.late.tolist(), [bundle.policy.threshold] * len(stored)),
                *(decisions.bands.tolist(), self._reasons(decisions)),
                (
                    self._warnings(decision.warnings, loan.warnings)
                    for decision, loan in zip(stored, loans, strict=True)
                ),
            )
        ]
        if not bundle.is_additive:
            for i, (decision, loan) in enumerate(zip(stored, loans, strict=True)):
                # Perhaps the decision was made on this loan alone: then a runtime may add in
                # another order.
                if computed[i].margin != decision.margin:
                    single = bundle.decide(loan.values, explain=False)
                    computed[i] = computed[i]._replace(
                        margin=single.margin,
                        probability=single.probability,
                        late=single.late,
                        band=BANDS.index(single.band),
                    )
        return computed

    def _warnings(self, stored: str | None, of_loan: list[LoanWarning]) -> str | None:
        """Return a loan's warnings as the ledger stores them; `stored` itself if these agree."""
        computed = self._version_warnings
        if of_loan:
            computed = warnings_json(of_loan + self._bundle.warnings)
        return stored if _warnings_agree(stored, computed) else computed

    def _reasons(self, decisions: Decisions) -> list[str | None]:
        if decisions.reasons is None:
            return [None] * len(decisions.margins)
        texts = self._texts.of_many(decisions.reasons)
        return [
            text if is_explained else None
            for text, is_explained in zip(texts, decisions.explained.tolist(), strict=True)
        ]


def count_decisions(database: Database, since_ms: int = 0, until_ms: int | None = None) -> int:
    """Count the decisions of a time range, including purged ones. Raises LedgerUnavailable."""
    rows = select(func.count()).where(in_time_range(decisions.c.id, since_ms, until_ms))
    with database.reading() as connection:
        return int(connection.execute(rows).scalar_one())


def count_references(database: Database, version: str) -> int:
    """Count the decisions and challenger scores of a version, which need it to be replayed.

    Raises LedgerError.
    """
    if database.is_sqlite and not database.file.exists():
        return 0
    database.check()
    numbers = select(versions.c.number).where(versions.c.version == version)
    with database.reading() as connection:
        return sum(
            connection.execute(select(func.count()).where(condition)).scalar_one()
            for condition in (
                # A purged decision has no band, and there is an index by version and band.
                decisions.c.version.in_(numbers) & decisions.c.band.is_not(None),
                challenges.c.version.in_(numbers),
            )
        )


def _warnings_agree(stored: str | None, computed: str | None) -> bool:
    """Return whether two texts of warnings are the same, except for suggested values.

    The number of suggested levels in a request is limited, so they do not follow from the loan
    alone. Earlier releases suggested no numbers.
    """
    if stored is None or computed is None or stored == computed:
        return stored == computed
    try:
        stored_sentences = _texts.decode(stored)
    except msgspec.MsgspecError:
        return False
    sentences = _texts.decode(computed)
    return len(stored_sentences) == len(sentences) and all(
        map(_sentences_agree, stored_sentences, sentences)
    )


def _sentences_agree(stored: str, computed: str) -> bool:
    shorter, longer = sorted((stored, computed), key=len)
    return stored == computed or (
        longer.startswith(f"{shorter} (did you mean ") and longer.endswith("?)")
    )


def _is_near(stored: Replayed, computed: Replayed) -> bool:
    """Return whether two decisions differ only by the rounding of a runtime."""
    try:
        return (
            abs(stored.probability - computed.probability) <= ONNX_TOLERANCE
            and stored[2:5] == computed[2:5]
            and stored.warnings == computed.warnings
            and _without_contributions(stored.reasons) == _without_contributions(computed.reasons)
        )
    except (TypeError, msgspec.MsgspecError):
        return False


def _without_contributions(reasons: str | None) -> list[tuple[object, ...]] | None:
    """Parse reasons, without their contributions."""
    if reasons is None:
        return None
    return [(each.feature, each.value, each.sentence) for each in _reasons.decode(reasons)]


def _count_differences(stored: Replayed, computed: Replayed) -> int:
    return sum(
        _pack(before) != _pack(after) for before, after in zip(stored, computed, strict=True)
    )


def _add_differences(
    report: ReplayReport, decision: StoredDecision, stored: Replayed, computed: Replayed
) -> None:
    for name, before, after in zip(Replayed._fields, stored, computed, strict=True):
        if _pack(before) == _pack(after):
            continue
        report.different[name] += 1
        if len(report.differences) < SHOWN:
            shown = map(_band_name, (before, after)) if name == "band" else (before, after)
            report.differences.append(Difference(uuid7.text(decision.id), name, *shown))


def _band_name(position: Any) -> object:
    """Return a band's name; an invalid position, from an edited record, as it is."""
    is_valid = isinstance(position, int) and 0 <= position < len(BANDS)
    return BANDS[position] if is_valid else position
