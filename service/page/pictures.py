"""Pictures for a new training: what was dropped becomes an archive, the archive a draft, the draft a preview with warnings."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from starlette.datastructures import UploadFile

from service.database.tables import Job
from service.intake.archives import ArchiveLimits, PictureFile, unpack
from service.intake.layout import CAPTION_ENDINGS, PICTURE_ENDINGS
from service.intake.pictures import PictureLimits
from service.intake.zip_names import BadArchive
from service.jobs.board import NewJob
from service.keys import Caller
from service.page.again import copy_pictures, input_key
from service.page.training_facts import CONSOLE, is_draft
from service.problems import FieldMistake, Problem, invalid, not_found
from service.services import Services
from service.storage.space import DiskFull, full_is_told, need_room
from service.storage.store import TooLarge
from service.training.job_folder import JobFolder
from service.views.taking import upload_limit

FIELD = "files"
PREVIEW_SIDE = 320  # pixels
GOOD_SIDE = 512  # a smaller picture is enlarged, at the usual resolution
STRONG_CROP = 2.0  # a picture so much longer than wide loses half of itself in a square
SHOWN = 200  # pictures of a preview
BLOCK_BYTES = 1 << 20
PREVIEW_FILE = "preview.json"
KINDS = ("instance", "class")
_PREVIEW_NAME = re.compile(r"\d{5}\.png")


@dataclass(frozen=True)
class Preview:
    """What a draft holds, as the page shows it."""

    job_id: str
    instance: Sequence[dict[str, Any]]
    classes: Sequence[dict[str, Any]]
    warnings: Sequence[str]

    @property
    def count(self) -> int:
        return len(self.instance)


def draft_of(services: Services, caller: Caller, files: Sequence[UploadFile]) -> Job:
    """A draft with these pictures: a zip, or pictures and captions. A Problem names what is wrong with them; then there is no draft."""
    if not files:
        raise invalid([FieldMistake(FIELD, "choose pictures (png, jpeg, webp, bmp), or a zip file of them")])
    with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
        archive = Path(folder) / "input.zip"
        try:
            need_room(Path(folder), 2 * sum(file.size or 0 for file in files), services.settings.disk_reserve_bytes)
            with full_is_told():
                _gather(files, archive)
            if archive.stat().st_size > upload_limit(services):
                raise TooLarge(upload_limit(services))
            facts = _look(services, archive, Path(folder))
            return _keep(services, caller, archive, Path(folder) / "preview", facts)
        except BadArchive as error:
            raise invalid([FieldMistake(FIELD, str(error))]) from None
        except TooLarge:
            most = services.settings.max_upload_mib
            raise invalid([FieldMistake(FIELD, f"at most {most} MiB can be uploaded; leave some out")]) from None
        except DiskFull as error:
            raise Problem(507, "Disk full", str(error)) from None


def draft_with_pictures_of(services: Services, caller: Caller, job: Job) -> Job:
    """A draft with the pictures of another training."""
    draft = services.board.create(caller, NewJob(api=CONSOLE, name=job.name, parent_id=job.id))
    try:
        copy_pictures(services, job, draft)
        with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
            archive = Path(folder) / "input.zip"
            services.store.download(input_key(draft.id), archive)
            facts = _look(services, archive, Path(folder))
            _put_preview(services.workshop.folder(draft), Path(folder) / "preview", facts)
    except BadArchive as error:
        services.board.cancel(draft.project_id, draft.id, "the service: its pictures cannot be read")
        raise invalid([FieldMistake(FIELD, str(error))]) from None
    except DiskFull as error:
        services.board.cancel(draft.project_id, draft.id, "the service: its disk is full")
        raise Problem(507, "Disk full", str(error)) from None
    except Problem:
        services.board.cancel(draft.project_id, draft.id, "the service: its pictures are gone")
        raise
    return services.board.get(draft.project_id, draft.id)


def find_draft(services: Services, caller: Caller, job_id: str) -> Job:
    job = services.board.get(caller.project_id, job_id)
    if not is_draft(job):
        raise not_found(f"draft {job_id[:64]}")
    return job


def preview_of(services: Services, job: Job) -> Preview | None:
    try:
        text = (services.workshop.folder(job).preview / PREVIEW_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    facts = json.loads(text)
    return Preview(job.id, facts["instance"], facts["class"], facts["warnings"])


def preview_path(services: Services, job: Job, kind: str, name: str) -> Path:
    path = services.workshop.folder(job).preview / kind / name
    if kind not in KINDS or not _PREVIEW_NAME.fullmatch(name) or not path.is_file():
        raise not_found("picture of this name")
    return path


def _gather(files: Sequence[UploadFile], archive: Path) -> None:
    """One zip file is taken as it is; everything else is put in one."""
    zips = [file for file in files if (file.filename or "").lower().endswith(".zip")]
    if zips and len(files) > 1:
        raise invalid([FieldMistake(FIELD, "choose one zip file, or pictures, but not both at once")])
    if zips:
        with archive.open("wb") as target:
            shutil.copyfileobj(zips[0].file, target, BLOCK_BYTES)
        return
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:  # pictures do not shrink
        for name, file in _named(files):
            with target.open(name, "w", force_zip64=True) as entry:
                shutil.copyfileobj(file, entry, BLOCK_BYTES)


def _named(files: Iterable[UploadFile]) -> Iterable[tuple[str, BinaryIO]]:
    """By their names alone, each once; a caption keeps the name of its picture. What is neither is told by the preview."""
    taken: set[str] = set()
    for number, file in enumerate(files, 1):
        name = plain_name(file.filename or "", number)
        while name.lower() in taken:
            path = PurePosixPath(name)
            name = f"{path.stem}-{number}{path.suffix}"
        taken.add(name.lower())
        yield name, file.file


def plain_name(name: str, number: int) -> str:
    plain = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    plain = "".join(letter if letter.isprintable() and letter not in ':*?"<>|' else "_" for letter in plain).strip(" .")
    path = PurePosixPath(plain or f"file-{number}")
    ending = path.suffix.lower() if path.suffix.lower() in (*PICTURE_ENDINGS, *CAPTION_ENDINGS) else path.suffix
    return f"{path.stem.encode()[:150].decode(errors='ignore')}{ending.encode()[:20].decode(errors='ignore')}"


def _look(services: Services, archive: Path, folder: Path) -> dict[str, Any]:
    """Small copies of the pictures under folder/preview, and what there is to say of each."""
    limits = ArchiveLimits(picture=PictureLimits(largest_side=PREVIEW_SIDE), reserve_bytes=services.settings.disk_reserve_bytes)
    preview = folder / "preview"
    found = unpack(archive, preview / "instance", preview / "class", limits)
    return {
        "instance": [_facts(picture) for picture in found.instance],
        "class": [_facts(picture) for picture in found.classes],
        "warnings": found.warnings,
    }


def _facts(picture: PictureFile) -> dict[str, Any]:
    caption = None if picture.caption is None else picture.caption.read_text(encoding="utf-8")[:300].strip()
    return {
        "file": picture.path.name, "name": picture.original_name, "width": picture.width, "height": picture.height,
        "caption": caption, "warnings": _remarks(picture.width, picture.height),
    }  # fmt: skip


def _remarks(width: int, height: int) -> list[str]:
    remarks = []
    if min(width, height) < GOOD_SIDE:
        remarks.append(f"small: below {GOOD_SIDE} pixels it is enlarged")
    if max(width, height) >= STRONG_CROP * min(width, height):
        remarks.append("long: half of it or more is cut off in a square")
    return remarks


def _keep(services: Services, caller: Caller, archive: Path, preview: Path, facts: dict[str, Any]) -> Job:
    draft = services.board.create(caller, NewJob(api=CONSOLE))
    key = input_key(draft.id)
    try:
        services.store.save(key, archive)
        _put_preview(services.workshop.folder(draft), preview, facts)
    except DiskFull:
        services.store.delete(key)
        services.board.cancel(draft.project_id, draft.id, "the service: its disk is full")
        raise
    services.board.mark_uploading(draft.project_id, draft.id, key)
    return services.board.get(draft.project_id, draft.id)


def _put_preview(folder: JobFolder, preview: Path, facts: dict[str, Any]) -> None:
    with full_is_told():
        folder.root.mkdir(parents=True, exist_ok=True)
        (preview / PREVIEW_FILE).write_text(json.dumps(facts), encoding="utf-8")
        shutil.rmtree(folder.preview, ignore_errors=True)
        shutil.move(preview, folder.preview)
