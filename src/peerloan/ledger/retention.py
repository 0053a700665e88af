"""What goes after its time: the values of old decisions, and keys that nobody may use again.

A purge erases in chunks, each a transaction that counts the chunk into the aggregates, erases it,
and adds it to the purge's own record. So it may be cut off at any moment: what was erased is
counted once, and recorded, and the next purge goes on with the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, and_, delete, func, insert, select, text, tuple_, update
from sqlalchemy.exc import SQLAlchemyError

from peerloan import uuid7
from peerloan.clock import now_ms
from peerloan.database.engine import Database
from peerloan.database.errors import LedgerError
from peerloan.database.tables import aggregates, challenges, decisions, keys, outcomes, purges
from peerloan.ledger.records import VALUES
from peerloan.ledger.row_batches import counts, size_of
from peerloan.ledger.seal import Seal
from peerloan.ledger.seal_ownership import expect_own
from peerloan.ledger.write.entries import KEY_MS

# Decisions of a chunk, and keys of one: meanwhile SQLite's other writers wait.
DECISIONS_AT_ONCE = 1_000
KEYS_AT_ONCE = 5_000
# Between chunks, so that a writer gets its turn: SQLite's ask again every 25 ms, at first.
_PAUSE_SECONDS = 0.03
# Month, version, source, band, outcome.
_Group = tuple[str, int, str, int, int]
_ERASED = dict.fromkeys((*VALUES, "salt"))


def forget_keys(database: Database) -> int:
    """Delete the idempotency keys of another day, in chunks; returns how many they were.

    Raises LedgerUnavailable.
    """
    # One that somebody takes anew just now is passed over.
    some = (
        select(keys.c.caller, keys.c.key)
        .where(keys.c.time_ms < now_ms() - KEY_MS)
        .order_by(keys.c.time_ms)
        .limit(KEYS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    forgotten = 0
    while True:
        with database.writing() as connection:
            gone = delete(keys).where(tuple_(keys.c.caller, keys.c.key).in_(some))
            done = connection.execute(gone).rowcount
        forgotten += done
        if done < KEYS_AT_ONCE:
            return forgotten
        _let_others_write(database)


def count_before(database: Database, before_ms: int) -> int:
    """How many decisions of before a moment (milliseconds since 1970) have their values yet."""
    rows = select(func.count()).select_from(decisions).where(decisions.c.salt.is_not(None))
    with database.reading() as connection:
        found = connection.execute(rows.where(decisions.c.id < uuid7.first_at(before_ms)))
        return int(found.scalar_one())


def purge(
    database: Database,
    seal: Seal,
    before_ms: int,
    who: str,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Erase the values of all decisions of before a moment; returns how many they were.

    What stays is what their chains need, and counts in `aggregates`. The moment is at least a day
    ago (milliseconds since 1970). `progress` is told how many are erased so far. Raises
    LedgerError.
    """
    started_ms = now_ms()
    if before_ms > started_ms - KEY_MS:
        raise LedgerError("only decisions that are older than a day can be purged")
    with database.reading() as connection:
        expect_own(connection, seal)  # a record of it by another key would count as edited
    # So are the keys that lead to them.
    forget_keys(database)
    number, erased = None, 0
    for low, high in _chunks(database, before_ms):
        with database.writing() as connection:
            if database.is_sqlite:
                # What was erased must not stand in the file's free space either.
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            else:
                # One purge at a time; in SQLite that holds of all writers.
                connection.execute(text("LOCK TABLE purges IN EXCLUSIVE MODE"))
            count = _erase(connection, low, high)
            if count:
                erased += count
                number = number or _next_number(connection)
                what = (number, started_ms, before_ms, erased, who)
                _record(connection, (*what, seal.purge(*what)))
        progress(erased)
        _let_others_write(database)
    if erased:
        _give_back_space(database)
    return erased


def _chunks(database: Database, before_ms: int) -> Iterator[tuple[UUID, UUID]]:
    """Ranges of ids up to a moment, one after the other, with so many decisions to erase in each,
    or fewer where their loans are large: what is erased goes through the database's log.

    They are looked for before the transaction that erases, which keeps others waiting.
    """
    low, end = UUID(int=0), uuid7.first_at(before_ms)
    while low < end:
        with database.reading() as connection:
            following = (
                select(decisions.c.id, size_of(connection, decisions.c.inputs))
                .where(decisions.c.id >= low, decisions.c.id < end, decisions.c.salt.is_not(None))
                .order_by(decisions.c.id)
                .limit(DECISIONS_AT_ONCE + 1)
            )
            found = connection.execute(following).all()
        count = next(counts((size for _, size in found), DECISIONS_AT_ONCE), 0)
        high = found[count].id if count < len(found) else end
        yield low, high
        low = high


def _erase(connection: Connection, low: UUID, high: UUID) -> int:
    """Count a range's decisions into the aggregates and erase them; returns how many."""
    within = and_(decisions.c.id >= low, decisions.c.id < high, decisions.c.salt.is_not(None))
    of_them = and_(outcomes.c.decision_id >= low, outcomes.c.decision_id < high)
    in_force: dict[UUID, bool] = {}
    found = select(outcomes.c.decision_id, outcomes.c.late).where(of_them)
    for decision, late in connection.execute(found.order_by(outcomes.c.number)):
        in_force[decision] = late
    counts: Counter[_Group] = Counter()
    sums: dict[_Group, float] = {}
    columns = ("id", "time_ms", "version", "source", "band", "probability")
    for row in connection.execute(select(*(decisions.c[each] for each in columns)).where(within)):
        month = datetime.fromtimestamp(row.time_ms / 1000, UTC).strftime("%Y-%m")
        group = (month, row.version, row.source, row.band, int(in_force.get(row.id, -1)))
        counts[group] += 1
        sums[group] = sums.get(group, 0.0) + row.probability
    for group, count in counts.items():
        _add(connection, group, count, sums[group])
    connection.execute(delete(outcomes).where(of_them))
    connection.execute(
        delete(challenges).where(challenges.c.decision_id >= low, challenges.c.decision_id < high)
    )
    return connection.execute(update(decisions).where(within).values(_ERASED)).rowcount


def _add(connection: Connection, group: _Group, count: int, total: float) -> None:
    named = zip(aggregates.primary_key.columns, group, strict=True)
    more = {
        "decisions": aggregates.c.decisions + count,
        "probabilities": aggregates.c.probabilities + total,
    }
    there = update(aggregates).where(*(column == value for column, value in named)).values(more)
    if not connection.execute(there).rowcount:
        connection.execute(insert(aggregates).values((*group, count, total)))


def _next_number(connection: Connection) -> int:
    return (connection.execute(select(func.max(purges.c.number))).scalar() or 0) + 1


def _record(connection: Connection, values: tuple[object, ...]) -> None:
    """Write the record of a purge, in place of what it was after the chunk before."""
    connection.execute(delete(purges).where(purges.c.number == values[0]))
    connection.execute(insert(purges).values(values))


def _let_others_write(database: Database) -> None:
    if database.is_sqlite:
        time.sleep(_PAUSE_SECONDS)


def _give_back_space(database: Database) -> None:
    """Let the database use the space again, if it is allowed now; else it does so in its time."""
    schema = None if database.is_sqlite else _schema(database)
    with contextlib.suppress(SQLAlchemyError), database.engine.connect() as connection:
        if database.is_sqlite:
            # The log holds the erased values until it is begun anew.
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in (decisions, outcomes, challenges, keys):
            connection.execute(text(f"VACUUM {schema}.{table.name}"))


def _schema(database: Database) -> str:
    """The schema of the tables, as SQL names it: a statement outside of transactions may be done by
    a session that looks for them elsewhere.
    """
    with database.reading() as connection:
        found = connection.exec_driver_sql("SELECT quote_ident(current_schema())")
        return str(found.scalar_one())
