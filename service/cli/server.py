"""What the operator does on the machine of the service: serve it, make and revoke keys. This needs the service's own packages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from library.errors import UserError
from service.cli.forms import DataOption, JsonOption
from service.cli.remote import Failed
from service.cli.show import note, tell_columns, tell_json
from service.identifiers import iso
from service.settings import read_settings

if TYPE_CHECKING:
    from service.keys import Keys

DAY = 24 * 3600.0
MOST_DAYS = 36_500
SQLITE = "sqlite:///"

ProjectOption = Annotated[str, typer.Option(metavar="NAME", help="The project that a key belongs to.")]


@dataclass(frozen=True, kw_only=True)
class OnServer:
    project: ProjectOption = "default"
    data_dir: DataOption = None
    json: JsonOption = False


@dataclass(frozen=True, kw_only=True)
class CreateKey(OnServer):
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is, or what it is for.", show_default=False)]
    scopes: Annotated[str, typer.Option(metavar="LIST", help="What it may do, separated by commas.")] = "read,train,admin"
    days: Annotated[float | None, typer.Option(metavar="N", help="How long it is good. [for ever]")] = None


@dataclass(frozen=True, kw_only=True)
class RevokeKey(OnServer):
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="As `keys list` shows it, or the key itself.", show_default=False)
    ]


def serve(context: typer.Context) -> int:
    """Serve on this machine, as launch.py serve does. Its --help lists the options."""
    from service.serve import main

    return main(context.args)


def create_key(asked: CreateKey) -> None:
    """Make a key, which is shown only now. The project is made if there is none of this name."""
    scopes = [scope for scope in asked.scopes.replace(",", " ").split() if scope]
    if not scopes:
        raise UserError("--scopes: write read, train or admin, or several with commas between them")
    if asked.days is not None and not 0 < asked.days <= MOST_DAYS:
        raise UserError(f"--days: {asked.days} is not between 0 and {MOST_DAYS}: write how many days the key is good")
    with _keys(asked) as keys:
        project = keys.project(asked.project)
        key = keys.create(project, asked.name, scopes, None if asked.days is None else time.time() + asked.days * DAY)
    if asked.json:
        tell_json({"key": key, "name": asked.name, "project": asked.project, "project_id": project, "scopes": scopes})
        return
    print(key)
    note(f"This key of the project {asked.project} ({project}) is shown only now.")


def list_keys(asked: OnServer) -> None:
    """List the keys of a project. They are told by their ids: the keys themselves nobody can show."""
    with _keys(asked) as keys:
        project = keys.known_project(asked.project)
        rows: list[dict[str, Any]] = [
            {
                "id": key.id, "name": key.name, "scopes": list(key.scopes), "created_at": iso(key.created_at),
                "expires_at": iso(key.expires_at), "last_used_at": iso(key.last_used_at), "revoked_at": iso(key.revoked_at),
            }
            for key in keys.listed(project)
        ]  # fmt: skip
    if asked.json:
        tell_json({"project": asked.project, "project_id": project, "keys": rows})
    else:
        head = ("id", "name", "scopes", "created_at", "expires_at", "last_used_at", "revoked_at")
        cells = [[",".join(row[name]) if name == "scopes" else row[name] for name in head] for row in rows]
        tell_columns([name.removesuffix("_at").replace("_", " ").upper() for name in head], cells)


def revoke_key(asked: RevokeKey) -> None:
    """Revoke a key. From the next request on it opens nothing."""
    parts = asked.key_id.split("_")
    key_id = parts[1] if len(parts) == 3 and parts[0] == "tadpole" else asked.key_id
    with _keys(asked) as keys:
        keys.revoke(keys.known_project(asked.project), key_id)
    if asked.json:
        tell_json({"id": key_id, "revoked": True})
    else:
        print(f"the key {key_id} is revoked")


@contextmanager
def _keys(asked: OnServer) -> Iterator[Keys]:
    """The keys in the service's database, which may be running meanwhile."""
    from sqlalchemy.exc import SQLAlchemyError

    from service.database.engine import Database
    from service.keys import Keys
    from service.problems import Problem

    settings = read_settings(["--data_dir", asked.data_dir] if asked.data_dir else [])
    if settings.database.startswith(SQLITE) and not Path(settings.database.removeprefix(SQLITE)).is_file():
        raise UserError(
            f"there is no service's data in {settings.data_dir}: name its folder with --data-dir, or serve once there"
        )
    database = Database(settings.database)
    try:
        database.upgrade()
        yield Keys(database)
    except Problem as problem:
        raise Failed(problem.detail) from None
    except SQLAlchemyError as error:
        raise Failed(f"the database does not answer as it should: {type(error).__name__}") from None
    finally:
        database.close()
