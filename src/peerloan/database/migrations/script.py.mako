"""${message}."""

from __future__ import annotations

from alembic import op

from peerloan.database.migrations import applied

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = depends_on = None
# The oldest release that may still write after this migration.
ADMITS = ""


def upgrade() -> None:
    """${message}."""
    applied(int(revision), ADMITS)
