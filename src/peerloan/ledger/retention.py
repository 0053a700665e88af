"""Retention: purge old decisions and delete expired idempotency keys.

A purge works in chunks. Each is a transaction that adds the chunk to the aggregates, erases it,
and adds it to the purge's own record. So a purge may be interrupted at any moment: what was erased
is counted once and recorded, and the next purge goes on with the rest.
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
from peerloan.ledger.row_batches import batch_sizes, input_size
from peerloan.ledger.seal import Seal
from peerloan.ledger.seal_ownership import require_own_seal
from peerloan.ledger.write.idempotency import KEY_MS

# Decisions and keys of one chunk. SQLite's other writers wait meanwhile.
DECISIONS_AT_ONCE = 1_000
KEYS_AT_ONCE = 5_000
# Pause between chunks, for other writers: SQLite's try again every 25 ms at first.
_PAUSE_SECONDS = 0.03
# Month, version, source, band, outcome.
_Group = tuple[str, int, str, int, int]
_ERASED = dict.fromkeys((*VALUES, "salt"))


def purge_expired_keys(database: Database) -> int:
    """Delete expired idempotency keys, in chunks. Returns how many. Raises LedgerUnavailable."""
    # A key that is being used again at this moment is skipped.
    expired = (
        select(keys.c.caller, keys.c.key)
        .where(keys.c.time_ms < now_ms() - KEY_MS)
        .order_by(keys.c.time_ms)
        .limit(KEYS_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    forgotten = 0
    while True:
        with database.writing() as connection:
            gone = delete(keys).where(tuple_(keys.c.caller, keys.c.key).in_(expired))
            done = connection.execute(gone).rowcount
        forgotten += done
        if done < KEYS_AT_ONCE:
            return forgotten
        _let_others_write(database)


def count_before(database: Database, before_ms: int) -> int:
    """Count the decisions before a moment (milliseconds since 1970) that are not purged yet."""
    rows = select(func.count()).select_from(decisions).where(decisions.c.salt.is_not(None))
    with database.reading() as connection:
        older = rows.where(decisions.c.id < uuid7.first_at(before_ms))
        return int(connection.execute(older).scalar_one())


def purge(
    database: Database,
    seal: Seal,
    before_ms: int,
    who: str,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Erase the values of all decisions made before a moment. Returns how many.

    What their chains need stays, and so do counts in `aggregates`. The moment (milliseconds since
    1970) must be at least a day ago. `progress` is called with the number erased so far. Raises
    LedgerError.
    """
    started_ms = now_ms()
    if before_ms > started_ms - KEY_MS:
        raise LedgerError("only decisions older than a day can be purged; name an earlier moment")
    with database.reading() as connection:
        require_own_seal(
            connection, seal
        )  # another key's record of the purge would count as edited
    # The idempotency keys that lead to the decisions go too.
    purge_expired_keys(database)
    number, erased = None, 0
    for low, high in _chunks(database, before_ms):
        with database.writing() as connection:
            if database.is_sqlite:
                # Erase the values from the file's free space too.
                connection.exec_driver_sql("PRAGMA secure_delete = ON")
            else:
                # One purge at a time. SQLite has one writer at a time anyway.
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
    """Yield ranges of ids up to a moment, each with at most a chunk of decisions to erase.

    A range has fewer decisions if the loans are large, since what is erased goes through the
    database's log. Ranges are read before the transaction that erases, which blocks other writers.
    """
    low, end = UUID(int=0), uuid7.first_at(before_ms)
    while low < end:
        with database.reading() as connection:
            following = (
                select(decisions.c.id, input_size(connection, decisions.c.inputs))
                .where(decisions.c.id >= low, decisions.c.id < end, decisions.c.salt.is_not(None))
                .order_by(decisions.c.id)
                .limit(DECISIONS_AT_ONCE + 1)
            )
            rows = connection.execute(following).all()
        count = next(batch_sizes((size for _, size in rows), DECISIONS_AT_ONCE), 0)
        high = rows[count].id if count < len(rows) else end
        yield low, high
        low = high


def _erase(connection: Connection, low: UUID, high: UUID) -> int:
    """Add a range's decisions to the aggregates and erase them. Returns how many."""
    within = and_(decisions.c.id >= low, decisions.c.id < high, decisions.c.salt.is_not(None))
    of_them = and_(outcomes.c.decision_id >= low, outcomes.c.decision_id < high)
    in_force: dict[UUID, bool] = {}
    reported = select(outcomes.c.decision_id, outcomes.c.late).where(of_them)
    for decision, late in connection.execute(reported.order_by(outcomes.c.number)):
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
    """Write the record of a purge, replacing the one written after the previous chunk."""
    connection.execute(delete(purges).where(purges.c.number == values[0]))
    connection.execute(insert(purges).values(values))


def _let_others_write(database: Database) -> None:
    if database.is_sqlite:
        time.sleep(_PAUSE_SECONDS)


def _give_back_space(database: Database) -> None:
    """Free the space now, if the database allows it; else it does so itself later."""
    schema = None if database.is_sqlite else _schema(database)
    with contextlib.suppress(SQLAlchemyError), database.engine.connect() as connection:
        if database.is_sqlite:
            # The write-ahead log holds the erased values until it is truncated.
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in (decisions, outcomes, challenges, keys):
            connection.execute(text(f"VACUUM {schema}.{table.name}"))


def _schema(database: Database) -> str:
    """Return the schema of the tables, quoted.

    A statement outside transactions may run in a session with another search path.
    """
    with database.reading() as connection:
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())")
        return str(schema.scalar_one())
