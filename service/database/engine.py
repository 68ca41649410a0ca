"""The engine: SQLite with a write-ahead log, or PostgreSQL. Transactions say beforehand whether they write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

BUSY_SECONDS = 5
MIGRATION_LOCK = 7_233_676_537  # any number: two services that start at once upgrade one after the other
MIGRATIONS = Path(__file__).parent / "migrations"
RETURNED = {"synchronize_session": False, "populate_existing": True}  # options of an UPDATE that returns rows as they are now


class Database:
    """Sessions on one database. What they return stays readable after they are closed."""

    def __init__(self, url: str):
        self._reading = create_engine(url, pool_size=20, max_overflow=40, pool_pre_ping=not url.startswith("sqlite"))
        self.is_sqlite = self._reading.dialect.name == "sqlite"
        if self.is_sqlite:
            if self._reading.url.database:
                Path(self._reading.url.database).parent.mkdir(parents=True, exist_ok=True)
            _prepare_sqlite(self._reading)
        self._writing = self._reading.execution_options(writing=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads: it sees one state of the database and stands in nobody's way."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes: committed at the end, undone by an exception."""
        with Session(self._writing, expire_on_commit=False) as session, session.begin():
            yield session

    def insert(self, table: type[Any]) -> Any:
        """An INSERT that knows `on_conflict_do_nothing`, which each of the two databases has in its own name."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    @property
    def engine(self) -> Engine:
        return self._reading

    def upgrade(self) -> None:
        """Make the tables, or bring those of an older version up to date; nothing is done halfway."""
        with self._writing.begin() as connection:
            if not self.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": MIGRATION_LOCK})
            configuration = Config()
            configuration.set_main_option("script_location", str(MIGRATIONS))
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")

    def close(self) -> None:
        self._reading.dispose()


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins no transaction by itself; the listener below does
        for pragma in (f"busy_timeout = {BUSY_SECONDS * 1000}", "journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A transaction that reads first and writes later would fail at once where another wrote in between, whatever the timeout.
        is_writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
