"""Other releases than this one, as images: each is the application's image and a few lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploy.deployment import RELEASE

PACKAGE = "/opt/peerloan/lib/python3.11/site-packages/peerloan"

# Releases that must not replace one that works, though the ledger's tables suit them.
BROKEN = {
    "does not start": """
        ENTRYPOINT ["sh", "-c", "[ $1 = ledger ] && exec peerloan \\"$@\\"", "sh"]
        """,
    # As an old release under a champion of a newer format.
    "can't read the champion": f"""
        RUN sed -i 's/^FORMAT = 1$/FORMAT = 0/' {PACKAGE}/registry/manifest.py \\
         && grep -qx 'FORMAT = 0' {PACKAGE}/registry/manifest.py
        """,
}

# The release 0.2.0: one migration more than this one.
_NEXT = f"""
    RUN sed -i 's/^__version__ = "0.1.0"$/__version__ = "0.2.0"/' {PACKAGE}/__init__.py \\
     && sed -i 's/^NUMBER = 3$/NUMBER = 4/' {PACKAGE}/database/tables.py \\
     && grep -q '"0.2.0"' {PACKAGE}/__init__.py \\
     && grep -qx 'NUMBER = 4' {PACKAGE}/database/tables.py
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
# What else its migration does.
MIGRATIONS = {
    "admits the release before": 'applied(4, "0.1.0")',
    "admits no release before": 'applied(4, "0.2.0")',
    "fails": 'op.drop_table("no_such_table")',
}


def build(tag: str, lines: str, folder: Path, migration: str = "") -> str:
    """Build an image of the application from this release's; returns its tag."""
    folder.mkdir()
    (folder / "migration.py").write_text(migration, "utf-8")
    recipe = f"FROM peerloan/ms_flask_app:{RELEASE}\nUSER root\n{lines}\nUSER 10001:10001\n"
    (folder / "Dockerfile").write_text(recipe, "utf-8")
    command = ["docker", "build", "-t", f"peerloan/ms_flask_app:{tag}", str(folder)]
    subprocess.run(command, capture_output=True, check=True)
    return tag


def build_broken(folder: Path) -> dict[str, str]:
    """The tags of images that must be refused, by what is wrong with them."""
    return {
        what: build(f"{RELEASE}-broken-{number}", lines, folder / str(number))
        for number, (what, lines) in enumerate(BROKEN.items())
    }


def build_next(folder: Path) -> dict[str, str]:
    """The tags of images of the next release, by what its migration does."""
    return {
        what: build(
            f"{RELEASE}-next-{number}", _NEXT, folder / str(number), _MIGRATION.format(then=then)
        )
        for number, (what, then) in enumerate(MIGRATIONS.items())
    }
