"""Adds the margin of a challenger's score, since the stored probability is rounded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from peerloan.database.migrations import applied

revision = "0003"
down_revision = "0002"
branch_labels = depends_on = None
# It only adds a nullable column, which the previous release ignores.
ADMITS = "0.1.0"


def upgrade() -> None:
    """Add the column; existing rows have null."""
    op.add_column("challenges", sa.Column("margin", sa.Double))
    applied(int(revision), ADMITS)
