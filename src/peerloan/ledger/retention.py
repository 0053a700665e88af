"""Retention: purge old decisions and delete expired idempotency keys.

A purge works in chunks. For each chunk one transaction adds its decisions to the table
`aggregates`, erases their values, and updates the purge's row in the table `purges`. So a purge may
be interrupted at any moment: every erased decision is counted once, and the next purge continues.
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
from peerloan.ledger.seal_ownership import require_matching_key
from peerloan.ledger.write.idempotency import KEY_MS

# Decisions of a chunk, and keys of a chunk. Other writers of SQLite wait for a whole chunk.
CHUNK_DECISIONS = 1_000
CHUNK_KEYS = 5_000
# Pause between chunks, for other writers: those of SQLite try again every 25 ms at first.
_PAUSE_SECONDS = 0.03
# Month, version, source, band, outcome.
_Group = tuple[str, int, str, int, int]
_ERASED = dict.fromkeys((*VALUES, "salt"))


def purge_expired_keys(database: Database, chunk_keys: int = CHUNK_KEYS) -> int:
    """Delete expired idempotency keys, in chunks. Returns their number.

    Raises LedgerUnavailable.
    """
    # Skip a key that another transaction is claiming again.
    expired = (
        select(keys.c.caller, keys.c.key)
        .where(keys.c.time_ms < now_ms() - KEY_MS)
        .order_by(keys.c.time_ms)
        .limit(chunk_keys)
        .with_for_update(skip_locked=True)
    )
    deleted = 0
    while True:
        with database.writing() as connection:
            deletion = delete(keys).where(tuple_(keys.c.caller, keys.c.key).in_(expired))
            count = connection.execute(deletion).rowcount
        deleted += count
        if count < chunk_keys:
            return deleted
        _let_others_write(database)


def count_unpurged(database: Database, before_ms: int) -> int:
    """Count the decisions made before a moment (milliseconds since 1970) and not purged yet.

    Raises LedgerUnavailable.
    """
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
    chunk_decisions: int = CHUNK_DECISIONS,
) -> int:
    """Erase the values of all decisions made before a moment. Returns the number of decisions.

    The columns that the chains need stay, and so do counts in `aggregates`. `before_ms`
    (milliseconds since 1970) must be at least a day ago. `who` is stored in the purge's row.
    `progress` is called with the number of decisions erased so far.

    Raises LedgerError for a later moment, LostSeal if the seal's key is not the ledger's,
    LedgerUnavailable. After an error the chunks erased so far stay erased.
    """
    started_ms = now_ms()
    if before_ms > started_ms - KEY_MS:
        raise LedgerError("only decisions older than a day can be purged; choose an earlier moment")
    with database.reading() as connection:
        # A row of `purges` with the MAC of another key would count as edited.
        require_matching_key(connection, seal)
    # The idempotency keys that refer to these decisions are expired too.
    purge_expired_keys(database)
    number, erased = None, 0
    for low, high in _chunks(database, before_ms, chunk_decisions):
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
                values = (number, started_ms, before_ms, erased, who)
                _write_row(connection, (*values, seal.purge_mac(*values)))
        progress(erased)
        _let_others_write(database)
    if erased:
        _free_space(database)
    return erased


def _chunks(
    database: Database, before_ms: int, chunk_decisions: int
) -> Iterator[tuple[UUID, UUID]]:
    """Yield ranges of ids up to a moment, each with at most `chunk_decisions` to erase.

    A range has fewer decisions if their loans are large, since each change goes through the
    database's log. The ranges are read before the transaction that erases, because this transaction
    blocks other writers.
    """
    low, end = UUID(int=0), uuid7.first_at(before_ms)
    while low < end:
        with database.reading() as connection:
            following = (
                select(decisions.c.id, input_size(connection, decisions.c.inputs))
                .where(decisions.c.id >= low, decisions.c.id < end, decisions.c.salt.is_not(None))
                .order_by(decisions.c.id)
                .limit(chunk_decisions + 1)
            )
            rows = connection.execute(following).all()
        count = next(batch_sizes((size for _, size in rows), chunk_decisions), 0)
        high = rows[count].id if count < len(rows) else end
        yield low, high
        low = high


def _erase(connection: Connection, low: UUID, high: UUID) -> int:
    """Add a range's decisions to the aggregates and erase their values. Returns their number."""
    within = and_(decisions.c.id >= low, decisions.c.id < high, decisions.c.salt.is_not(None))
    outcomes_within = and_(outcomes.c.decision_id >= low, outcomes.c.decision_id < high)
    # The last outcome of each decision counts.
    latest: dict[UUID, bool] = {}
    reported = select(outcomes.c.decision_id, outcomes.c.late).where(outcomes_within)
    for decision, late in connection.execute(reported.order_by(outcomes.c.number)):
        latest[decision] = late
    counts: Counter[_Group] = Counter()
    sums: dict[_Group, float] = {}
    columns = ("id", "time_ms", "version", "source", "band", "probability")
    for row in connection.execute(select(*(decisions.c[name] for name in columns)).where(within)):
        month = datetime.fromtimestamp(row.time_ms / 1000, UTC).strftime("%Y-%m")
        group = (month, row.version, row.source, row.band, int(latest.get(row.id, -1)))
        counts[group] += 1
        sums[group] = sums.get(group, 0.0) + row.probability
    for group, count in counts.items():
        _add_to_aggregates(connection, group, count, sums[group])
    connection.execute(delete(outcomes).where(outcomes_within))
    connection.execute(
        delete(challenges).where(challenges.c.decision_id >= low, challenges.c.decision_id < high)
    )
    return connection.execute(update(decisions).where(within).values(_ERASED)).rowcount


def _add_to_aggregates(connection: Connection, group: _Group, count: int, total: float) -> None:
    """Add a count of decisions and the sum of their probabilities to a group's row."""
    key = zip(aggregates.primary_key.columns, group, strict=True)
    sums = {
        "decisions": aggregates.c.decisions + count,
        "probabilities": aggregates.c.probabilities + total,
    }
    addition = update(aggregates).where(*(column == value for column, value in key)).values(sums)
    if not connection.execute(addition).rowcount:
        connection.execute(insert(aggregates).values((*group, count, total)))


def _next_number(connection: Connection) -> int:
    return (connection.execute(select(func.max(purges.c.number))).scalar() or 0) + 1


def _write_row(connection: Connection, values: tuple[object, ...]) -> None:
    """Write a purge's row, replacing the one written after the previous chunk."""
    connection.execute(delete(purges).where(purges.c.number == values[0]))
    connection.execute(insert(purges).values(values))


def _let_others_write(database: Database) -> None:
    if database.is_sqlite:
        time.sleep(_PAUSE_SECONDS)


def _free_space(database: Database) -> None:
    """Return the space to the system, if the database allows it; otherwise it does so later."""
    schema = None if database.is_sqlite else _schema(database)
    with contextlib.suppress(SQLAlchemyError), database.engine.connect() as connection:
        if database.is_sqlite:
            # The write-ahead log contains the erased values until it is truncated.
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            return
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for table in (decisions, outcomes, challenges, keys):
            connection.execute(text(f"VACUUM {schema}.{table.name}"))


def _schema(database: Database) -> str:
    """Return the schema of the tables, quoted.

    Statements outside a transaction need it: their session may have another search path.
    """
    with database.reading() as connection:
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())")
        return str(schema.scalar_one())
