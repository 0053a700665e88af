"""Builds images of other releases: this release's image, changed by a few lines of a Dockerfile."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.deployment import RELEASE

PACKAGE = "/opt/peerloan/lib/python3.11/site-packages/peerloan"

# Releases that an update must refuse, although they can use the ledger's tables.
BROKEN = {
    "does not start": """
        ENTRYPOINT ["sh", "-c", "[ $1 = ledger ] && exec peerloan \\"$@\\"", "sh"]
        """,
    # Like an old release, when the champion has a newer format.
    "can't read the champion": f"""
        RUN sed -i 's/^FORMAT = 1$/FORMAT = 0/' {PACKAGE}/registry/manifest.py \\
         && grep -qx 'FORMAT = 0' {PACKAGE}/registry/manifest.py
        """,
}

# Release 0.2.0, with one more migration than this one.
_NEXT = f"""
    RUN sed -i 's/^__version__ = "0.1.0"$/__version__ = "0.2.0"/' {PACKAGE}/__init__.py \\
     && sed -i 's/^NEWEST_MIGRATION = 3$/NEWEST_MIGRATION = 4/' {PACKAGE}/database/tables.py \\
     && grep -q '"0.2.0"' {PACKAGE}/__init__.py \\
     && grep -qx 'NEWEST_MIGRATION = 4' {PACKAGE}/database/tables.py
    COPY migration.py {PACKAGE}/database/migrations/versions/0004_next.py
    """
_MIGRATION = """
import sqlalchemy as sa
from alembic import op

from peerloan.database.migrations import applied

revision, down_revision = "0004", "0003"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("reviewed", sa.Boolean))
    op.create_index("outcomes_by_time", "outcomes", ["recorded_ms"])
    {then}
"""
# What else the migration of 0.2.0 does.
MIGRATIONS = {
    "admits the release before": 'applied(4, "0.1.0")',
    "admits no release before": 'applied(4, "0.2.0")',
    "fails": 'op.drop_table("no_such_table")',
}


# The tags of the images, by what the release does.
BROKEN_TAGS = {what: f"{RELEASE}-broken-{number}" for number, what in enumerate(BROKEN)}
NEXT_TAGS = {what: f"{RELEASE}-next-{number}" for number, what in enumerate(MIGRATIONS)}


def build(tag: str, lines: str, folder: Path, migration: str = "") -> None:
    """Build an image of the application from this release's image."""
    folder.mkdir()
    (folder / "migration.py").write_text(migration, "utf-8")
    recipe = f"FROM peerloan/ms_flask_app:{RELEASE}\nUSER root\n{lines}\nUSER 10001:10001\n"
    (folder / "Dockerfile").write_text(recipe, "utf-8")
    command = ["docker", "build", "-t", f"peerloan/ms_flask_app:{tag}", str(folder)]
    subprocess.run(command, capture_output=True, check=True)


def build_broken(folder: Path) -> None:
    """Build the images that must be refused."""
    for what, tag in BROKEN_TAGS.items():
        build(tag, BROKEN[what], folder / tag)


def build_next(folder: Path) -> None:
    """Build the images of the next release."""
    for what, tag in NEXT_TAGS.items():
        build(tag, _NEXT, folder / tag, _MIGRATION.format(then=MIGRATIONS[what]))
