"""Creates the first tables of the ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from peerloan.database.migrations import applied
from peerloan.database.tables import Id

revision = "0001"
down_revision = None
branch_labels = depends_on = None
# The oldest release that may still write after this migration.
ADMITS = "0.1.0"


def upgrade() -> None:
    """Create the tables as this release defined them, independent of later releases."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.create_table(
        "migrations",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("admits", sa.String, nullable=False),
        sa.Column("release", sa.String, nullable=False),
        sa.Column("applied_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "versions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("threshold", sa.Double, nullable=False),
        sa.UniqueConstraint("version", "digest"),
    )
    op.create_table(
        "chains",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("opened_ms", sa.BigInteger, nullable=False),
        sa.Column("release", sa.String, nullable=False),
        sa.Column("heads", sa.Text, nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("head_id", Id),
        sa.Column("head_seq", sa.BigInteger, nullable=False),
        sa.Column("head_mac", sa.LargeBinary(32), nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    op.create_table(
        "decisions",
        sa.Column("id", Id, primary_key=True),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("chain", sa.Integer, nullable=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("source", sa.String),
        sa.Column("caller", sa.String),
        sa.Column("request_id", sa.String),
        sa.Column("idempotency_key", sa.String),
        sa.Column("loan_id", sa.String),
        sa.Column("inputs", sa.Text),
        sa.Column("margin", sa.Double),
        sa.Column("probability", sa.Double),
        sa.Column("late", sa.Boolean),
        sa.Column("band", sa.SmallInteger),
        sa.Column("reasons", sa.Text),
        sa.Column("warnings", sa.Text),
        sa.Column("salt", sa.LargeBinary(16)),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
        postgresql_partition_by="RANGE (id)",
    )
    op.create_index("decisions_by_loan", "decisions", ["loan_id", "id"])
    op.create_index("decisions_by_version", "decisions", ["version", "band", "id"])
    if op.get_bind().dialect.name == "postgresql":
        # Decisions of a month without a partition must not be lost.
        op.execute("CREATE TABLE decisions_other PARTITION OF decisions DEFAULT")
    op.create_table(
        "challenges",
        sa.Column("decision_id", Id, primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("probability", sa.Double, nullable=False),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("caller", sa.String, primary_key=True),
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("request", sa.LargeBinary(32), nullable=False),
        sa.Column("decisions", sa.LargeBinary, nullable=False),
    )
    op.create_index("idempotency_keys_by_time", "idempotency_keys", ["time_ms"])
    op.create_table(
        "outcomes",
        sa.Column("number", number, primary_key=True),
        sa.Column("decision_id", Id, nullable=False),
        sa.Column("late", sa.Boolean, nullable=False),
        sa.Column("observed", sa.Integer),
        sa.Column("recorded_ms", sa.BigInteger, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
    )
    op.create_index("outcomes_by_decision", "outcomes", ["decision_id", "number"])
    op.create_table(
        "purges",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("before_ms", sa.BigInteger, nullable=False),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String, nullable=False),
        sa.Column("mac", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "aggregates",
        sa.Column("month", sa.String, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("band", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("outcome", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("decisions", sa.BigInteger, nullable=False),
        sa.Column("probabilities", sa.Double, nullable=False),
    )
    applied(int(revision), ADMITS)
