"""A fresh database for each test: SQLite, or a schema in the PostgreSQL that TADPOLE_TEST_DATABASE_URL names."""
from __future__ import annotations

import atexit
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import Engine, create_engine, text

from service.database.engine import Database
from service.database.tables import Base

POSTGRESQL = os.environ.get("TADPOLE_TEST_DATABASE_URL", "").replace("postgresql://", "postgresql+psycopg://", 1)
_free: list[str] = []  # schemas of this process that no test has at the moment


@contextmanager
def fresh_database(folder: Path) -> Iterator[str]:
    """The URL of a database with all tables and no rows."""
    if not POSTGRESQL:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(_empty_sqlite(), folder / "service.sqlite3")
        yield f"sqlite:///{folder / 'service.sqlite3'}"
        return
    schema = _free.pop() if _free else _new_schema()
    yield _url_of(schema)
    _empty(schema)
    _free.append(schema)  # the next test has it: making one takes a hundred times as long as emptying one


def _new_schema() -> str:
    schema = f"test_{uuid.uuid4().hex}"
    with _server().connect() as connection:
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    database = Database(_url_of(schema))
    database.upgrade()
    database.close()
    return schema


def _empty(schema: str) -> None:
    """No rows, and numbers from 1 on, as in a new one. What has the tables open yet is cut off: it belongs to a test that is over."""
    tables = ", ".join(f"{schema}.{table.name}" for table in Base.metadata.sorted_tables)
    with _server().connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :name"), {"name": schema})
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))


def _url_of(schema: str) -> str:
    return f"{POSTGRESQL}{'&' if '?' in POSTGRESQL else '?'}application_name={schema}&options=-csearch_path%3D{schema}"


@cache
def _server() -> Engine:
    return create_engine(POSTGRESQL, isolation_level="AUTOCOMMIT")


@cache
def _empty_sqlite() -> Path:
    """Upgrading takes longer than copying."""
    folder = Path(mkdtemp(prefix="tadpole-empty-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    database = Database(f"sqlite:///{folder / 'empty.sqlite3'}")
    database.upgrade()
    database.close()
    return folder / "empty.sqlite3"
