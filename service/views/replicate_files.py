"""Replicate's files API: what clients put here to name it in their inputs."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqlalchemy import delete, select
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import UploadFile as Part

from service.database.tables import StoredFile
from service.identifiers import iso, new_id
from service.jobs.pages import page_of
from service.keys import Caller, Reader, Trainer
from service.problems import Problem, not_found
from service.services import Services, services_of
from service.views.replicate_pages import PAGE_ROWS, page_view

router = APIRouter(prefix="/v1/files", tags=["Replicate"])
Given = Annotated[Services, Depends(services_of)]
BLOCK_BYTES = 1 << 20
LARGEST_METADATA = 64 << 10
LINK_SECONDS = 3600


async def _metadata(request: Request) -> dict[str, Any]:
    """The optional part `metadata`: a text, or a file, as the client for JavaScript sends it."""
    part = (await request.form()).get("metadata")
    raw: str | bytes = await part.read(LARGEST_METADATA + 1) if isinstance(part, Part) else part or "{}"
    try:
        found = json.loads(raw) if len(raw) <= LARGEST_METADATA else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Problem(422, "Bad metadata", f"metadata: send a JSON object of at most {LARGEST_METADATA} bytes", field="metadata")
    return found


@router.post("", status_code=201)
async def create(
    caller: Trainer, services: Given, content: Annotated[UploadFile, File()], metadata: Annotated[dict[str, Any], Depends(_metadata)]
) -> dict[str, Any]:
    """Takes a file; it is deleted after a day (`keep_files_hours`)."""
    return await run_in_threadpool(_store, caller, services, content, metadata)


def _store(caller: Caller, services: Services, content: UploadFile, metadata: dict[str, Any]) -> dict[str, Any]:
    file_id, now = new_id(), services.board.clock()
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
        path = Path(folder) / "content"
        with path.open("wb") as file:
            while block := content.file.read(BLOCK_BYTES):
                md5.update(block)
                sha256.update(block)
                file.write(block)
        stored = services.store.save(f"files/{file_id}", path)
    row = StoredFile(
        id=file_id, project_id=caller.project_id, name=(content.filename or "file")[:255],
        content_type=(content.content_type or "application/octet-stream")[:255], size=stored.size, etag=stored.etag,
        md5=md5.hexdigest(), sha256=sha256.hexdigest(), details=metadata, key=stored.key, created_at=now,
        expires_at=now + services.settings.keep_files_hours * 3600,
    )  # fmt: skip
    try:
        with services.database.writing() as session:
            session.add(row)
    except SQLAlchemyError:
        services.store.delete(stored.key)  # without its row, nobody would ever find it
        raise
    return file_view(services, row)


@router.get("")
def listed(caller: Reader, services: Given, cursor: str | None = None) -> dict[str, Any]:
    """Without the archives that the experimental API takes, which have no MD5 here."""
    with services.database.reading() as session:
        page = page_of(session, StoredFile, [StoredFile.project_id == caller.project_id, StoredFile.md5 != ""], cursor, PAGE_ROWS)
    return page_view(services, "v1/files", page, [file_view(services, file) for file in page.rows])


@router.get("/{file_id}")
def show(file_id: str, caller: Reader, services: Given) -> dict[str, Any]:
    return file_view(services, _find(services, caller, file_id))


@router.get("/{file_id}/download", response_class=RedirectResponse, status_code=302)
def download(file_id: str, caller: Reader, services: Given) -> str:
    """To its content, for who has a key of its project."""
    file = _find(services, caller, file_id)
    return services.store.get_url(file.key, seconds=LINK_SECONDS, file_name=file.name)


@router.delete("/{file_id}", status_code=204)
def remove(file_id: str, caller: Trainer, services: Given) -> None:
    file = _find(services, caller, file_id)
    services.store.delete(file.key)
    with services.database.writing() as session:
        session.execute(delete(StoredFile).where(StoredFile.id == file.id))


def _find(services: Services, caller: Caller, file_id: str) -> StoredFile:
    mine = (StoredFile.id == file_id, StoredFile.project_id == caller.project_id)
    with services.database.reading() as session:
        file = session.scalar(select(StoredFile).where(*mine))
    if file is None:
        raise not_found(f"file {file_id[:64]}")
    return file


def file_view(services: Services, file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id, "name": file.name, "content_type": file.content_type, "size": file.size, "etag": file.etag,
        "checksums": {"md5": file.md5, "sha256": file.sha256}, "metadata": file.details, "created_at": iso(file.created_at),
        "expires_at": iso(file.expires_at), "urls": {"get": f"{services.settings.url}/v1/files/{file.id}"},
    }  # fmt: skip
