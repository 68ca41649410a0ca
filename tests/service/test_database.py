"""The tables are those that the migrations make; transactions neither lose changes nor fail because of each other."""
from __future__ import annotations

from threading import Thread

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, select, text

from service.database.engine import Database
from service.database.tables import Base, Project


def test_the_migrations_make_the_tables(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_upgrading_twice_changes_nothing(database: Database) -> None:
    with database.writing() as session:
        session.add(Project(id="a", name="a", created_at=1.0))
    database.upgrade()
    with database.reading() as session:
        assert session.scalars(select(Project.id)).all() == ["a"]


def test_sqlite_waits_and_keeps_references(database: Database) -> None:
    if database.is_sqlite:
        with database.reading() as session:
            values = [session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")]
        assert values == ["wal", 5000, 1, 1]
    else:
        with database.reading() as session:
            assert session.scalar(text("SELECT 1")) == 1


def test_writers_that_read_first_do_not_fail(database: Database) -> None:
    """With a transaction that SQLite begins as a reader, all but one of these would stop with "database is locked"."""
    failures: list[Exception] = []

    def add(number: int) -> None:
        try:
            for count in range(5):
                with database.writing() as session:
                    session.scalar(select(func.count()).select_from(Project))
                    session.add(Project(id=f"{number}-{count}", name=f"{number}-{count}", created_at=0.0))
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Project)) == 30


def test_an_exception_undoes_the_transaction(database: Database) -> None:
    try:
        with database.writing() as session:
            session.add(Project(id="a", name="a", created_at=1.0))
            session.flush()
            raise KeyError
    except KeyError:
        pass
    with database.reading() as session:
        assert session.scalars(select(Project.id)).all() == []
