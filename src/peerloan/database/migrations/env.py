"""Alembic's environment: run each migration in its own transaction."""

from __future__ import annotations

from alembic import context

from peerloan.database import tables

engine = context.config.attributes["engine"]
version_schema = None
if engine.dialect.name != "sqlite":
    # The schema that contains the tables; another schema may belong to another application.
    with engine.connect() as asking:
        version_schema = asking.exec_driver_sql("SELECT current_schema()").scalar_one()
with engine.connect() as connection:
    context.configure(
        connection=connection,
        version_table_schema=version_schema,
        target_metadata=tables.metadata,
        transactional_ddl=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        context.run_migrations()
    connection.commit()
