"""The migrations, which bring a database to this release's tables, one after another.

Each is a module in `versions`. It stores its release, and the oldest release that may still write
after it, in the table `migrations`. So a service that was not updated, or was rolled back, either
continues or reports why it can't.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command, op
from alembic.config import Config
from sqlalchemy import Engine

from peerloan import __version__
from peerloan.clock import now_ms
from peerloan.database import tables

FOLDER = Path(__file__).parent


def migrate(engine: Engine, folder: Path = FOLDER / "versions") -> None:
    """Apply every migration in the folder that was not applied yet."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))
    config.attributes["engine"] = engine
    command.upgrade(config, "head")


def applied(number: int, admits: str) -> None:
    """Record that a migration was applied, and the oldest release that it admits."""
    op.bulk_insert(
        tables.migrations,
        [{"number": number, "admits": admits, "release": __version__, "applied_ms": now_ms()}],
    )
