"""The four stages; here the first two: pictures unpacked, trained. What is heavy runs as a process of the executor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.database.tables import Job
from service.events import TrainingProgress
from service.executors.base import Spec, Status
from service.intake.addresses import FetchFailed
from service.intake.archives import ArchiveLimits, unpack
from service.intake.fetch import fetch
from service.intake.layout import PLAIN, Layout
from service.intake.zip_directory import BadArchive
from service.jobs.handing_over import Building, Publishing
from service.jobs.results import OUTPUT_ZIP
from service.jobs.stages import Stage, StageFailed, Stopped, unless_stopped
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, TRAINING
from service.jobs.workshop import InProcess, Workshop, told_in
from service.masking import mask
from service.storage.store import NoSuchObject, TooLarge
from service.training.fields import BadInput
from service.training.job_files import write_run
from service.training.job_folder import JobFolder, write_whole
from service.training.resolved import ResolvedRequest, with_class_pictures

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = {"cerebrium": Layout("dataset/trainingData", "dataset/classData", known=("finetune_config.yaml", "dataset.json"))}
PREPARED = "prepared.json"  # what came of it; it is written last, so that a stage that has it is done


def make_stages(workshop: Workshop) -> dict[str, Stage]:
    return {
        PREPARING: Preparing(workshop),
        TRAINING: Training(workshop),
        BUILDING: Building(workshop),
        PUBLISHING: Publishing(workshop),
    }


class Preparing(InProcess):
    """The archives fetched and unpacked. A second time finds done what is done."""

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        folder = self._workshop.folder(job)
        done = folder.stage(PREPARING) / PREPARED
        if not done.exists():
            try:
                self._prepare(job, folder, done, should_stop)
            except (BadArchive, FetchFailed, TooLarge) as error:
                raise StageFailed(mask(str(error))) from None
        return None

    def end(self, job: Job) -> dict[str, Any]:
        facts = json.loads((self._workshop.folder(job).stage(PREPARING) / PREPARED).read_text(encoding="utf-8"))
        return {"warnings": [*job.warnings, *facts["warnings"]], "progress": facts["pictures"]}

    def _prepare(self, job: Job, folder: JobFolder, done: Path, should_stop: Callable[[], bool]) -> None:
        done.parent.mkdir(parents=True, exist_ok=True)
        folder.archive.parent.mkdir(parents=True, exist_ok=True)
        sources = _sources(job)
        unless_stopped(lambda: self._get(job, job.input_key, sources.get("instance_data"), folder.archive), should_stop)

        def watch(_done: int, _total: int) -> None:
            if should_stop():
                raise Stopped

        layout, limits = LAYOUTS.get(job.api, PLAIN), ArchiveLimits(reserve_bytes=self._workshop.rules.reserve_bytes)
        found = unpack(folder.archive, folder.instance_pictures, folder.class_pictures, limits, layout, watch)
        classes, warnings = len(found.classes), list(found.warnings)
        if sources.get("class_data"):
            unless_stopped(lambda: self._get(job, None, sources["class_data"], folder.class_archive), should_stop)
            apart = unpack(folder.class_archive, folder.class_pictures, None, limits, progress=watch)
            classes, warnings = len(apart.instance), [*warnings, *apart.warnings]
        if self._workshop.trainer(job).is_ours:
            warnings += _further_warnings(self._workshop.resolved(job), classes)
        log = [f"{len(found.instance)} pictures, {classes} of the class", *warnings]
        folder.log(PREPARING).write_text("\n".join(log) + "\n", encoding="utf-8")
        facts = {"warnings": warnings, "pictures": {"pictures": len(found.instance), "class_pictures": classes}}
        write_whole(done, json.dumps(facts))

    def _get(self, job: Job, key: str | None, url: str | None, archive: Path) -> None:
        if key is not None:
            try:
                self._workshop.store.uploaded(key, max_bytes=self._workshop.max_upload_bytes)
                self._workshop.store.download(key, archive)
            except NoSuchObject:
                raise StageFailed("nothing was uploaded; PUT the archive to its URL, then start the job") from None
        elif url:
            fetch(url, archive, replace(self._workshop.rules, own_content=self._workshop.own_content(job)))
        else:
            raise StageFailed("there are no pictures: neither an upload nor instance_data")


class Training:
    """Our script, or a trainer package, as a process."""

    def __init__(self, workshop: Workshop):
        self._workshop = workshop
        self._progress: dict[str, TrainingProgress] = {}  # by job

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        folder = self._workshop.folder(job)
        trainer = self._workshop.trainer(job)
        if not trainer.is_ours:
            command = trainer.prepare(job.inputs, folder)
            return self._spec(job, folder, command.words, {}, tuple(filter(None, [trainer.folder])))
        resolved = self._workshop.resolved(job)
        self._workshop.cache.fill(resolved, folder)
        launch = write_run(resolved, folder)
        argv = (sys.executable, str(ROOT / launch.script), *launch.arguments)
        base = resolved.base
        readable = tuple(path for path in (base.path, base.vae_path) if path is not None)
        return self._spec(job, folder, argv, dict(launch.environment), readable)._replace(processes=launch.processes)

    def _spec(self, job: Job, folder: JobFolder, argv: tuple[str, ...], environment: dict[str, str], readable: tuple[Path, ...]) -> Spec:
        return Spec(
            job_id=job.id, stage=TRAINING, argv=argv, cwd=folder.root, environment=environment, log=folder.log(TRAINING),
            folder=folder.root, limits=self._workshop.limits, readable=readable,
        )  # fmt: skip

    def progress(self, job: Job) -> dict[str, Any] | None:
        following = self._progress.setdefault(job.id, TrainingProgress())
        files = self._workshop.folder(job).events()
        return dict(following.now) if following.update(files[-1] if files else None) else None

    def explain(self, job: Job, status: Status) -> str:
        """What the trainer itself says is wrong, where it does; else how it ended."""
        return told_in(self._workshop.folder(job).log(TRAINING)) or mask(status.reason)

    def end(self, job: Job) -> dict[str, Any]:
        folder = self._workshop.folder(job)
        found = folder.weights() if self._workshop.trainer(job).is_ours else folder.output / OUTPUT_ZIP
        if found is None or not found.exists():
            raise StageFailed("the training ended and left nothing: the end of its log says why")
        return {}

    def take_back(self, job: Job) -> None:
        return None

    def leave(self, job: Job) -> None:
        self._progress.pop(job.id, None)
        with suppress(StageFailed):  # the operator has taken away what it was trained with
            if self._workshop.trainer(job).is_ours:
                self._workshop.cache.keep(self._workshop.resolved(job), self._workshop.folder(job))


def _sources(job: Job) -> Mapping[str, Any]:
    request = (job.resolved or {}).get("request") or job.inputs
    return {name: request.get(name) for name in ("instance_data", "class_data")}


def _further_warnings(resolved: ResolvedRequest, class_pictures: int) -> list[str]:
    try:
        return list(with_class_pictures(resolved, class_pictures).warnings[len(resolved.warnings) :])
    except BadInput as error:
        raise StageFailed(str(error)) from None
