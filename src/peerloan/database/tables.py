"""The tables of this release. The migrations bring a database to them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

# The number of the migration that creates these tables.
NEWEST_MIGRATION = 3


class Id(TypeDecorator[UUID]):
    """A decision's id: 16 bytes in SQLite, a UUID in PostgreSQL. Both sort by time."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Use PostgreSQL's UUID type."""
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else LargeBinary(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        """Convert an id to the database's type."""
        return value if value is None or dialect.name == "postgresql" else value.bytes

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        """Convert an id from the database's type."""
        return value if value is None or dialect.name == "postgresql" else UUID(bytes=value)


metadata = MetaData()
# SQLite generates row numbers only for a column of exactly this type.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

# The migrations that were applied, with the oldest release that may still write after each.
migrations = Table(
    "migrations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("admits", String, nullable=False),
    Column("release", String, nullable=False),
    Column("applied_ms", BigInteger, nullable=False),
)

# The model versions that made decisions or scored as a challenger.
versions = Table(
    "versions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("version", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("threshold", Double, nullable=False),
    UniqueConstraint("version", "digest"),
)

# Each writer's chain of records: its opening (opened_ms, release, heads, mac), and its last stored
# head (seen_ms, head_id, head_seq, head_mac).
chains = Table(
    "chains",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("release", String, nullable=False),
    # The heads of other chains at that time: JSON, [[number, seq, mac], …].
    Column("heads", Text, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("head_id", Id),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_mac", LargeBinary(32), nullable=False),
    Column("closed", Boolean, nullable=False),
)

# One row for each decision. A purge erases the nullable columns; the others are what the chain's
# MACs cover. PostgreSQL partitions the table by month; `Database.upgrade` creates the partitions.
decisions = Table(
    "decisions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("chain", Integer, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),
    Column("source", String),
    Column("caller", String),
    Column("request_id", String),
    Column("idempotency_key", String),
    Column("loan_id", String),
    # The loan: JSON as it was received, without whitespace since its size is limited.
    Column("inputs", Text),
    Column("margin", Double),
    Column("probability", Double),
    Column("late", Boolean),
    # The position in BANDS.
    Column("band", SmallInteger),
    # JSON; null if no reasons were requested from a version that computes them slowly.
    Column("reasons", Text),
    # JSON; null if there are none.
    Column("warnings", Text),
    Column("salt", LargeBinary(16)),
    Column("digest", LargeBinary(32), nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Index("decisions_by_loan", "loan_id", "id"),
    Index("decisions_by_version", "version", "band", "id"),
)

# The challenger's score of a decision's loan, in shadow.
challenges = Table(
    "challenges",
    metadata,
    Column("decision_id", Id, primary_key=True),
    Column("version", Integer, nullable=False),
    # Rounded, as it is displayed.
    Column("probability", Double, nullable=False),
    # Null in rows from before migration 3.
    Column("margin", Double),
)

# Requests with an Idempotency-Key, stored for a day: their content and their decisions.
keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("request", LargeBinary(32), nullable=False),
    # The ids, 16 bytes each, in the order of the response.
    Column("decisions", LargeBinary, nullable=False),
    Index("idempotency_keys_by_time", "time_ms"),
)

# Outcomes of decisions. The one with the highest number counts; the others are its history.
outcomes = Table(
    "outcomes",
    metadata,
    Column("number", _NUMBER, primary_key=True),
    Column("decision_id", Id, nullable=False),
    Column("late", Boolean, nullable=False),
    # The day of observation, if it was reported: days since 1970.
    Column("observed", Integer),
    Column("recorded_ms", BigInteger, nullable=False),
    Column("caller", String, nullable=False),
    Index("outcomes_by_decision", "decision_id", "number"),
)

# Purges: the values of all decisions before a time were erased.
purges = Table(
    "purges",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("before_ms", BigInteger, nullable=False),
    Column("decisions", BigInteger, nullable=False),
    Column("who", String, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
)

# Counts of purged decisions, and the sums of their probabilities.
aggregates = Table(
    "aggregates",
    metadata,
    Column("month", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("source", String, primary_key=True),
    Column("band", SmallInteger, primary_key=True),
    # 1: late, 0: not late, -1: no outcome was reported.
    Column("outcome", SmallInteger, primary_key=True),
    Column("decisions", BigInteger, nullable=False),
    Column("probabilities", Double, nullable=False),
)

# The monitoring lease: its holder, its expiry (another process may take it then), and progress.
watchers = Table(
    "watchers",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String),
    Column("until_ms", BigInteger, nullable=False),
    # Increases with each change of the counts. A process that read an older revision must not add
    # to the counts.
    Column("revision", BigInteger, nullable=False),
    # The last outcome that was counted.
    Column("outcome", BigInteger, nullable=False),
    # The time up to which the rules were applied.
    Column("judged_ms", BigInteger, nullable=False),
)

# Counting progress of each chain: its last counted record, and whether the chain is complete.
counted = Table(
    "counted",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Id, nullable=False),
    Column("done", Boolean, nullable=False),
)

# Loans by version and hour (hours since 1970), counted in bins: JSON.
counts = Table(
    "counts",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", String, primary_key=True),
    Column("counts", Text, nullable=False),
)

# Figures of a version's window that ended on a day, or of a month (days since 1970): JSON.
figures = Table(
    "figures",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    # "day" or "month".
    Column("kind", String, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("figures", Text, nullable=False),
    Index("figures_by_day", "kind", "day"),
)

# Active alerts, with the last figures of each.
alarms = Table(
    "alarms",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("rule", String, primary_key=True),
    Column("about", String, primary_key=True),
    Column("level", String, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

# Events: CloudEvents as JSON, and who acknowledged them.
events = Table(
    "events",
    metadata,
    Column("number", _NUMBER, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("type", String, nullable=False),
    Column("event", Text, nullable=False),
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_by", String),
    Column("why", String),
)

# Deliveries of each event: attempts so far, and when the next one is due; null: delivered.
deliveries = Table(
    "deliveries",
    metadata,
    Column("event", BigInteger, primary_key=True, autoincrement=False),
    Column("channel", String, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_ms", BigInteger),
    Column("fault", String),
    Index("deliveries_by_next", "next_ms"),
)
