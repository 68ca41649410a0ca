"""Alembic's entry: migrates the connection that `Database.upgrade` hands over."""

from __future__ import annotations

from alembic import context

from service.database.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, transactional_ddl=True)
context.run_migrations()
