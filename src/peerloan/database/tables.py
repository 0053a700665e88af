"""The ledger's tables, as this release knows them; `migrations` brings a database to them."""

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

# The migration that makes the tables as they stand here.
NUMBER = 3


class Id(TypeDecorator[UUID]):
    """A decision's id: 16 bytes in SQLite, and PostgreSQL's own type there; both order by time."""

    impl = LargeBinary(16)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """PostgreSQL has a type for it."""
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else LargeBinary(16))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> Any:
        """As the database takes it."""
        return value if value is None or dialect.name == "postgresql" else value.bytes

    def process_result_value(self, value: Any, dialect: Dialect) -> UUID | None:
        """As the database gave it."""
        return value if value is None or dialect.name == "postgresql" else UUID(bytes=value)


metadata = MetaData()
# SQLite counts by itself only a column of this very type.
_NUMBER = BigInteger().with_variant(Integer, "sqlite")

# Which migrations were applied, and the oldest release that may still write after each.
migrations = Table(
    "migrations",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("admits", String, nullable=False),
    Column("release", String, nullable=False),
    Column("applied_ms", BigInteger, nullable=False),
)

# The model versions that decided. What follows from a version alone stands here once.
versions = Table(
    "versions",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("version", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("threshold", Double, nullable=False),
    UniqueConstraint("version", "digest"),
)

# Each writer's chain of records: how it was opened, and its head as it was last written down.
chains = Table(
    "chains",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("release", String, nullable=False),
    # The heads of the chains that were open then: JSON, [[number, seq, mac], …].
    Column("heads", Text, nullable=False),
    Column("mac", LargeBinary(32), nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("head_id", Id),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_mac", LargeBinary(32), nullable=False),
    Column("closed", Boolean, nullable=False),
)

# A row a decision. What may be erased is nullable; what the chain needs is not. PostgreSQL keeps it
# in partitions of a month, which the migrations make.
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
    # JSON, as it was given; compact since releases bound its size.
    Column("inputs", Text),
    Column("margin", Double),
    Column("probability", Double),
    Column("late", Boolean),
    # The position in BANDS.
    Column("band", SmallInteger),
    # JSON; null if none were asked for of a version whose reasons cost time.
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
    # Rounded, as it is shown.
    Column("probability", Double, nullable=False),
    # Null in the rows of releases before migration 3.
    Column("margin", Double),
)

# Requests that carry an Idempotency-Key, for a day: what they were, and their decisions.
keys = Table(
    "idempotency_keys",
    metadata,
    Column("caller", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("request", LargeBinary(32), nullable=False),
    # The ids, 16 bytes each, in the answer's order.
    Column("decisions", LargeBinary, nullable=False),
    Index("idempotency_keys_by_time", "time_ms"),
)

# What became of loans. The one with the highest number holds; the others are its history.
outcomes = Table(
    "outcomes",
    metadata,
    Column("number", _NUMBER, primary_key=True),
    Column("decision_id", Id, nullable=False),
    Column("late", Boolean, nullable=False),
    # The day on which it was observed, if that was told: days since 1970.
    Column("observed", Integer),
    Column("recorded_ms", BigInteger, nullable=False),
    Column("caller", String, nullable=False),
    Index("outcomes_by_decision", "decision_id", "number"),
)

# That values were erased: of all decisions before a time.
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

# What is left of purged decisions: counts.
aggregates = Table(
    "aggregates",
    metadata,
    Column("month", String, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("source", String, primary_key=True),
    Column("band", SmallInteger, primary_key=True),
    # 1: late, 0: not, -1: no outcome came.
    Column("outcome", SmallInteger, primary_key=True),
    Column("decisions", BigInteger, nullable=False),
    Column("probabilities", Double, nullable=False),
)

# Watching: who does it now, until when (others may take over then), and how far it has come.
watchers = Table(
    "watchers",
    metadata,
    Column("name", String, primary_key=True),
    Column("holder", String),
    Column("until_ms", BigInteger, nullable=False),
    # It rises with each change of the counts: who read an earlier state must not add to this one.
    Column("revision", BigInteger, nullable=False),
    # The last outcome that was counted.
    Column("outcome", BigInteger, nullable=False),
    # Up to when the rules were applied.
    Column("judged_ms", BigInteger, nullable=False),
)

# How far each chain was counted: its last record, and whether nothing can follow it any more.
counted = Table(
    "counted",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("id", Id, nullable=False),
    Column("done", Boolean, nullable=False),
)

# The loans of an hour (hours since 1970) that a version decided on, counted in bins: JSON.
counts = Table(
    "counts",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("source", String, primary_key=True),
    Column("counts", Text, nullable=False),
)

# What was said of a version's window that ended on a day, or of a month (days since 1970): JSON.
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

# The rules that speak now: what each said last.
alarms = Table(
    "alarms",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("rule", String, primary_key=True),
    Column("about", String, primary_key=True),
    Column("level", String, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
)

# What was to be told: CloudEvents as JSON, and who has taken note of them.
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

# To whom each event is told: how often that was tried, and when next; null: done.
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
