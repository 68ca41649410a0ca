"""The registry: versions are added and deleted, never changed."""
from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, event, select

from service.database.engine import Database
from service.database.tables import AuditEntry, Model
from service.keys import Keys
from service.packages.registry import NewVersion, Registry, model_name

NEW = NewVersion(
    id="ab12", job_id=None, label="1.0", notes="spots", template="txt2img", cog_version="0.16.12", openapi_schema={"a": 1}, card={"name": "frog"},
    folder="packages/ab12",
)  # fmt: skip


@pytest.fixture
def project(database: Database) -> str:
    database.upgrade()
    return Keys(database).project("default")


@pytest.fixture
def registry(database: Database, project: str) -> Registry:
    times = iter(range(1, 100))
    return Registry(database, lambda: float(next(times)))


def test_a_model_comes_with_its_first_version(registry: Registry, project: str, database: Database) -> None:
    made = registry.add(project, "frog", NEW, "Frogs.")
    assert (made.model.owner, made.model.name, made.model.description, made.name) == ("default", "frog", "Frogs.", "default/frog:ab12")
    registry.add(project, "frog", replace(NEW, id="cd34"))
    with database.reading() as session:
        assert len(session.scalars(select(Model)).all()) == 1


def test_a_model_that_is_deleted_as_its_version_comes_is_made_again(registry: Registry, project: str, database: Database) -> None:
    registry.remove(registry.add(project, "frog", NEW))
    deleting = iter(["by its owner"])

    @event.listens_for(database.engine, "after_cursor_execute")
    def meanwhile(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO models") and next(deleting, None):
            connection.exec_driver_sql("DELETE FROM models")

    made = registry.add(project, "frog", NEW, "Frogs.")
    assert (made.name, made.model.description) == ("default/frog:ab12", "Frogs.")
    found = registry.by_id(project, "ab12")
    assert found is not None and found.model.id == made.model.id


def test_what_is_there_is_not_changed(registry: Registry, project: str, database: Database) -> None:
    registry.add(project, "frog", NEW)
    again = registry.add(project, "frog", replace(NEW, notes="other", card={"name": "other"}))
    assert (again.version.notes, again.version.card) == ("spots", {"name": "frog"})
    with database.reading() as session:
        assert session.scalars(select(AuditEntry.action)).all() == ["version added"]


def test_versions_are_found_by_id_by_label_and_the_newest_without(registry: Registry, project: str) -> None:
    registry.add(project, "a/frog", NEW)
    registry.add(project, "a/frog", replace(NEW, id="cd34", label="2.0"))
    registry.add(project, "a/frog", replace(NEW, id="ef56", label="1.0"))

    def found(version: str | None) -> str | None:
        row = registry.find(project, "default", "a/frog", version)
        return row.version.id if row else None

    assert [found(version) for version in ("ab12", "1.0", "2.0", None, "3.0")] == ["ab12", "ef56", "cd34", "ef56", None]


def test_other_projects_see_nothing(registry: Registry, project: str, database: Database) -> None:
    registry.add(project, "frog", NEW)
    other = Keys(database).project("other")
    assert registry.by_id(other, "ab12") is None
    assert registry.find(other, "default", "frog") is None


def test_what_is_removed_is_gone(registry: Registry, project: str) -> None:
    registry.remove(registry.add(project, "frog", NEW))
    assert registry.by_id(project, "ab12") is None


@pytest.mark.parametrize("name", ["frog", "a/frog-2.0", "F_1"])
def test_names_that_a_model_can_have(name: str) -> None:
    assert model_name(name, "job") == name


@pytest.mark.parametrize("name", ["", "..", "a//b", "/a", "a b", "a" * 129, "ä", "a/../b", "-a"])
def test_names_that_it_cannot(name: str) -> None:
    assert model_name(name, "job") == "job"
