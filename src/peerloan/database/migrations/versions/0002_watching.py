"""Creates the tables of monitoring: lease, counts, figures, alerts and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from peerloan.database.migrations import applied
from peerloan.database.tables import Id

revision = "0002"
down_revision = "0001"
branch_labels = depends_on = None
# It only adds tables, which the previous release ignores.
ADMITS = "0.1.0"


def upgrade() -> None:
    """Create the tables as this release defined them, independent of later releases."""
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    watchers = op.create_table(
        "watchers",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("holder", sa.String),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.BigInteger, nullable=False),
        sa.Column("judged_ms", sa.BigInteger, nullable=False),
    )
    nothing = {"until_ms": 0, "revision": 0, "outcome": 0, "judged_ms": 0}
    op.bulk_insert(watchers, [{"name": "monitor"} | nothing])
    op.create_table(
        "counted",
        sa.Column("chain", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("id", Id, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_table(
        "counts",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("source", sa.String, primary_key=True),
        sa.Column("counts", sa.Text, nullable=False),
    )
    op.create_table(
        "figures",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("figures", sa.Text, nullable=False),
    )
    op.create_index("figures_by_day", "figures", ["kind", "day"])
    op.create_table(
        "alarms",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("rule", sa.String, primary_key=True),
        sa.Column("about", sa.String, primary_key=True),
        sa.Column("level", sa.String, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "events",
        sa.Column("number", number, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("type", sa.String, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("acknowledged_ms", sa.BigInteger),
        sa.Column("acknowledged_by", sa.String),
        sa.Column("why", sa.String),
    )
    op.create_table(
        "deliveries",
        sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_ms", sa.BigInteger),
        sa.Column("fault", sa.String),
    )
    op.create_index("deliveries_by_next", "deliveries", ["next_ms"])
    applied(int(revision), ADMITS)
