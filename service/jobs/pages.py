"""Pages of rows, newest first, by cursors that stay right while rows are added."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, select, tuple_
from sqlalchemy.orm import Session

from service.problems import Problem

Row = TypeVar("Row")
Conditions = Sequence[ColumnElement[bool]]
MOST_ROWS = 200


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows, and the cursors of the pages of newer (`previous`) and older (`next`) ones."""

    rows: Sequence[Row]
    next: str | None
    previous: str | None


def page_of(session: Session, table: type[Row], conditions: Conditions, cursor: str | None, limit: int) -> Page[Row]:
    """A page of a table that has `created_at` and `id`."""
    return page_of_several(session, {table: conditions}, cursor, limit)


def page_of_several(session: Session, tables: Mapping[type[Any], Conditions], cursor: str | None, limit: int) -> Page[Any]:
    """A page of such tables as if they were one."""
    count = max(1, min(limit, MOST_ROWS))
    direction, created_at, row_id = _read(cursor) if cursor else ("next", None, None)
    found: list[Any] = []
    for table, conditions in tables.items():
        place = tuple_(table.created_at, table.id)
        query = select(table).where(*conditions)
        if direction == "previous":
            query = query.where(place > (created_at, row_id)).order_by(table.created_at, table.id)
        else:
            query = query.order_by(table.created_at.desc(), table.id.desc())
            if cursor:
                query = query.where(place < (created_at, row_id))
        found += session.scalars(query.limit(count + 1))
    found.sort(key=lambda row: (row.created_at, row.id), reverse=direction == "next")
    has_more, found = len(found) > count, found[:count]
    if direction == "previous":
        found.reverse()
    has_older = has_more if direction == "next" else True
    has_newer = cursor is not None if direction == "next" else has_more
    return Page(
        found,
        next=_write("next", found[-1]) if found and has_older else None,
        previous=_write("previous", found[0]) if found and has_newer else None,
    )


def _write(direction: str, row: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps([direction, row.created_at, row.id]).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[str, float, str]:
    try:
        direction, created_at, row_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if direction in ("next", "previous") and isinstance(row_id, str):
            return direction, float(created_at), row_id
    except (ValueError, TypeError):
        pass
    raise Problem(400, "Bad cursor", "this cursor is none that we gave; leave it out to begin with the newest", field="cursor")
