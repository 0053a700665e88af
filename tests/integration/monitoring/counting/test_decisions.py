"""Counting the ledger: each decision once, however and whenever it was committed."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, update

from helpers.ledgers import now_ms
from helpers.past import DAY_MS, HOUR_MS, Past, loans_of
from helpers.stores import VersionOf
from peerloan.database import Database, LedgerError, tables
from peerloan.ledger.challenger_scores import ScoredByChallenger, store_challenger_scores
from peerloan.ledger.records import Version
from peerloan.monitoring.counting import decisions, deduplication
from peerloan.monitoring.counting.counts import Counts
from peerloan.monitoring.counting.decisions import Progress, count_new
from peerloan.monitoring.counting.early_outcomes import EarlyOutcomes
from peerloan.monitoring.counting.outcomes import count_outcomes
from peerloan.monitoring.counting.storage import Hour, read_counts, read_known_outcomes
from peerloan.monitoring.counting.version_cache import VersionCache
from peerloan.monitoring.windows import History, Window, read_window
from peerloan.registry import Bundle, Store

Loans = list[dict[str, object]]
DAY = 20_000
START = DAY * DAY_MS
MARGIN = math.log(0.03 / 0.97)


@pytest.fixture
def bundle(store: Store, version_of: VersionOf) -> Bundle:
    return store.load(version_of("additive"))


@pytest.fixture
def loans(sample_book: Path, bundle: Bundle) -> Loans:
    return [loan for loan, _ in itertools.islice(loans_of(sample_book, bundle), 400)]


def counts(database: Database) -> dict[Hour, Counts]:
    """All that is kept, without what is zero in the end."""
    with database.reading() as connection:
        found = dict(read_counts(connection, 0, 10**6))
    for each in found.values():
        each.cells = {cell: count for cell, count in each.cells.items() if count}
        each.strange = [{k: v for k, v in some.items() if v} for some in each.strange]
    return {hour: each for hour, each in found.items() if each.loans or each.outcomes}


def counted_anew(database: Database, store: Store) -> dict[Hour, Counts]:
    with database.writing() as connection:
        for table in (tables.counts, tables.counted):
            connection.execute(delete(table))
    count_new(database, store)
    return counts(database)


def test_commits_in_any_order_are_counted_once_and_the_latest_of_a_day_stands(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    chance = random.Random(1)
    writers = [Past(database, tmp_path / "seal", bundle) for _ in range(3)]
    # Each has a time of its own: what one commits may be days older than what another did.
    clocks = [START] * 3
    latest: dict[tuple[str, str, int], int] = {}
    alone = done = 0
    for _ in range(25):
        which = chance.randrange(3)
        some = chance.sample(loans, 12)
        source = chance.choice(("api", "book"))
        end = clocks[which] + chance.randrange(1, 9) * HOUR_MS
        named = [loan | {"loan_id": f"loan-{chance.randrange(40)}"} for loan in some[:10]]
        bare = [{k: v for k, v in loan.items() if k != "loan_id"} for loan in some[10:]]
        for i, loan in enumerate(named + bare):
            made = clocks[which] + (end - clocks[which]) * i // 12
            if "loan_id" in loan:
                key = str(loan["loan_id"]), source, made // DAY_MS
                latest[key] = max(latest.get(key, 0), made)
            else:
                alone += 1
        writers[which].decide(named + bare, clocks[which], end, source)
        clocks[which] = end
        if chance.random() < 0.6:
            done += count_new(database, store).decisions
    done += count_new(database, store).decisions
    assert done == 25 * 12
    assert count_new(database, store).decisions == 0
    for writer in writers:
        writer.close()
    found = counts(database)
    assert sum(each.loans for each in found.values()) == len(latest) + alone
    assert all(sum(some) == each.loans for each in found.values() for some in each.bins)
    assert all(sum(each.cells.values()) == each.loans for each in found.values())
    assert counted_anew(database, store) == found


def test_a_day_of_more_loans_than_are_held_in_memory_counts_each_once(
    database: Database,
    store: Store,
    bundle: Bundle,
    loans: Loans,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deduplication, "MAX_LOANS_IN_MEMORY", 5)
    monkeypatch.setattr(decisions, "BATCH_DECISIONS", 10)
    past = Past(database, tmp_path / "seal", bundle)
    for i in range(3):
        named = [loan | {"loan_id": f"loan-{k}"} for k, loan in enumerate(loans[i : i + 20])]
        past.decide(named, START + i * HOUR_MS, START + (i + 1) * HOUR_MS)
    past.close()
    assert count_new(database, store).decisions == 60
    loans_by_hour = {hour.hour: counted.loans for hour, counted in counts(database).items()}
    assert loans_by_hour == {START // HOUR_MS + 2: 20}


def test_a_loan_that_writers_decided_one_after_another_counts_once(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    for i in range(3):
        writer = Past(database, tmp_path / "seal", bundle)
        begin = START + i * HOUR_MS
        writer.decide([loans[i] | {"loan_id": "same"}], begin, begin + HOUR_MS, "book")
        writer.close()  # from its next count on, nothing of it is looked at
        count_new(database, store)
        assert sum(each.loans for each in counts(database).values()) == 1
    found = counts(database)
    assert counted_anew(database, store) == found


def test_what_a_writer_has_not_told_of_yet_is_counted_if_it_is_new(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle, write_heads=False)
    now = now_ms()
    for i in range(3):
        past.decide(loans[i : i + 1], now + i, now + i + 1)
        assert count_new(database, store).decisions == 1
    old = now - DAY_MS
    other = Past(database, tmp_path / "seal", bundle, write_heads=False)
    other.decide(loans[4:5], old, old + 1)
    assert count_new(database, store).decisions == 0, "it is a day older than its writer"
    other.close()
    past.decide(loans[5:7], now + 9, now + 10)
    assert count_new(database, store).decisions == 3, "once the writer has told of it"
    past.close()
    assert known(database) == (6, 0, 0)


def test_a_record_that_is_gone_is_not_waited_for(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle)
    made = past.decide(loans[:10], START, START + HOUR_MS)
    with database.writing() as connection:
        connection.execute(delete(tables.decisions).where(tables.decisions.c.seq.in_((1, 5))))
    assert count_new(database, store).decisions == 8
    past.decide(loans[10:12], START + HOUR_MS, START + 2 * HOUR_MS)
    assert count_new(database, store).decisions == 2
    past.close()
    assert len(made) == 10


def test_outcomes_are_counted_with_their_decisions_and_corrected(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle)
    made = past.decide(loans[:20], START, START + HOUR_MS)
    challenger = Version.of(bundle)
    store_challenger_scores(
        database, [ScoredByChallenger(each, challenger, 0.03, MARGIN) for each in made[:5]]
    )
    past.report_outcomes(made[:10], [True] * 4 + [False] * 6)
    done = count_new(database, store)
    count_outcomes(database, store, done)
    assert (done.decisions, done.outcomes, done.days) == (20, 10, {DAY})
    assert known(database) == (20, 10, 4)
    past.report_outcomes(made[2:12], [False] * 10)
    done = Progress()
    count_outcomes(database, store, done)
    assert (done.outcomes, known(database)) == (4, (20, 12, 2)), "two corrected, two new"
    (each,) = counts(database).values()
    ((cell, both),) = next(iter(each.challengers.values())).items()
    assert both == (5, 2)
    assert cell == pytest.approx((MARGIN - bundle.policy.threshold_margin) * 64, abs=1)
    count_outcomes(database, store, done)
    assert known(database) == (20, 12, 2)
    # Rows of equal value, of other callers, some of them counted together: nothing changes.
    before = counts(database)
    for callers in (("b",), ("c", "d")):
        for who in callers:
            past.report_outcomes(made[:12], [True] * 2 + [False] * 10, who)
        done = Progress()
        count_outcomes(database, store, done)
        assert done.outcomes == 12 * len(callers)
        assert counts(database) == before
    past.close()


def test_a_challenger_s_outcomes_are_counted_by_its_stored_margin(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle)
    made = past.decide(loans[:4], START, START + HOUR_MS)
    # Their probabilities round to 1 and to 0, of which no margin can be computed.
    margins = (25.0, -25.0, 24.0, MARGIN)
    shown = (1.0, 0.0, 1.0, 0.03)
    challenger = Version.of(bundle)
    store_challenger_scores(
        database, [ScoredByChallenger(made[i], challenger, shown[i], margins[i]) for i in range(4)]
    )
    # As a release before stored the last two.
    unstored = tables.challenges.c.decision_id.in_([UUID(bytes=each) for each in made[2:]])
    with database.writing() as connection:
        connection.execute(update(tables.challenges).where(unstored).values(margin=None))
    past.report_outcomes(made, [True, False, True, True])
    count_outcomes(database, store, count_new(database, store))
    (each,) = counts(database).values()
    (outcomes,) = each.challengers.values()
    cells = [
        math.floor((margin - bundle.policy.threshold_margin) * 64)
        for margin in (25.0, -25.0, MARGIN)
    ]
    assert outcomes == dict(zip(cells, [(1, 1), (1, 0), (1, 1)], strict=True))
    past.close()


def test_outcomes_that_were_told_too_early_are_taken_off_the_counts(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle)
    made = past.decide(loans[:20], START, START + HOUR_MS)
    store_challenger_scores(
        database, [ScoredByChallenger(each, Version.of(bundle), 0.03, MARGIN) for each in made[:5]]
    )
    past.report_outcomes(made[:10], [True] * 4 + [False] * 6)
    within_the_hour = update(tables.outcomes).values(recorded_ms=START + HOUR_MS)
    with database.writing() as connection:
        connection.execute(within_the_hour)
    count_outcomes(database, store, count_new(database, store))
    assert known(database) == (20, 10, 4), "as releases before count, which may go on from here"
    early = EarlyOutcomes()
    assert in_figures(database, store, early) == {"window": (0, 0), "challenger": (0, 0)}
    # Told again in time: the same, which adds a row now, and another.
    past.report_outcomes(made[:3], [True, False, False])
    count_outcomes(database, store, Progress())
    assert known(database) == (20, 10, 2)
    counting = {"window": (3, 1), "challenger": (3, 1), "history": (3, 1)}
    assert in_figures(database, store, early) == counting
    assert in_figures(database, store, EarlyOutcomes()) == counting
    hour = START // HOUR_MS
    assert in_figures(database, store, EarlyOutcomes(hour, hour + 1)) == counting
    past.report_outcomes(made[:3], [True, False, False])
    past.report_outcomes(made[3:6], [True, True, False])
    count_outcomes(database, store, Progress())
    assert in_figures(database, store, early)["window"] == (6, 3)
    # The same of another caller: once more in time, and the first in time of those told too early.
    past.report_outcomes(made[:10], [True, False, False, True, True] + [False] * 5, "other")
    count_outcomes(database, store, Progress())
    for each in (early, EarlyOutcomes()):
        assert in_figures(database, store, each)["window"] == (10, 3)
    past.close()


def in_figures(database: Database, store: Store, early: EarlyOutcomes) -> dict[str, object]:
    """Known and late loans that figures are made of."""
    with database.reading() as connection:
        versions = VersionCache(connection, store)
        off = early.read(connection, versions)
        ((number, found),) = read_window(connection, versions, Window(0, 10**6), off).items()
        history = History(read_known_outcomes(connection, 0, 10**6), off).mature(
            number, DAY + 1, 0.1, 9
        )
    (challenger,) = found.challengers.values()
    every = {"window": found.outcomes, "challenger": challenger, "history": history}
    sums = {
        name: tuple(map(sum, zip(*cells.values(), strict=True))) for name, cells in every.items()
    }
    return {name: each for name, each in sums.items() if each}


def known(database: Database) -> tuple[int, int, int]:
    """Loans, known ones, late ones."""
    found = list(counts(database).values())
    pairs = [pair for each in found for pair in each.outcomes.values()]
    return sum(each.loans for each in found), sum(a for a, _ in pairs), sum(b for _, b in pairs)


def test_who_counts_beside_another_leaves_it_to_that_one(
    database: Database, store: Store, bundle: Bundle, loans: Loans, tmp_path: Path
) -> None:
    past = Past(database, tmp_path / "seal", bundle)
    past.decide(loans[:3], START, START + HOUR_MS)
    opened = store.load

    class Slow(Store):
        def load(self, version: str) -> Bundle:
            count_new(database, store)  # another is quicker
            return opened(version)

    with pytest.raises(LedgerError, match="another process has counted"):
        count_new(database, Slow(store.root))
    assert known(database) == (3, 0, 0)
    past.close()
