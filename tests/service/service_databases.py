"""A fresh database for each test: SQLite, or a schema of its own in the PostgreSQL that TADPOLE_TEST_DATABASE_URL names."""
from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import create_engine, text

from service.database.engine import Database

POSTGRESQL = os.environ.get("TADPOLE_TEST_DATABASE_URL", "").replace("postgresql://", "postgresql+psycopg://", 1)


@contextmanager
def fresh_database(folder: Path) -> Iterator[str]:
    """The URL of a database with all tables and no rows."""
    if not POSTGRESQL:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_sqlite(), folder / "service.sqlite3")
        yield f"sqlite:///{folder / 'service.sqlite3'}"
        return
    schema = f"test_{uuid.uuid4().hex}"
    engine = create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
        try:
            url = f"{POSTGRESQL}{'&' if '?' in POSTGRESQL else '?'}options=-csearch_path%3D{schema}"
            database = Database(url)
            database.upgrade()
            database.close()
            yield url
        finally:
            connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


@cache
def _empty_sqlite() -> Path:
    """Upgrading takes longer than copying."""
    path = Path(mkdtemp(prefix="tadpole-empty-"), "empty.sqlite3")
    database = Database(f"sqlite:///{path}")
    database.upgrade()
    database.close()
    return path
