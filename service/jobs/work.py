"""The four stages: pictures unpacked, trained, packed, handed over. What is heavy runs as a process of the executor."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from library.errors import UserError
from service.database.tables import Job
from service.events import TrainingProgress
from service.executors.base import Limits, Spec, Status
from service.intake.addresses import FetchFailed
from service.intake.archives import unpack
from service.intake.fetch import fetch
from service.intake.layout import PLAIN, Layout
from service.intake.target import FetchRules
from service.intake.zip_directory import BadArchive
from service.jobs.results import OUTPUT_ZIP, pack, result_files
from service.jobs.stages import Stage, StageFailed, Stopped, unless_stopped
from service.jobs.states import BUILDING, PREPARING, PUBLISHING, TRAINING
from service.masking import mask
from service.packages.publishing import Publisher
from service.storage.space import DiskFull
from service.storage.store import NoSuchObject, Store, TooLarge
from service.trainers import Trainer, Trainers
from service.training.class_pictures import ClassPictureCache
from service.training.fields import BadInput
from service.training.job_files import write_run
from service.training.job_folder import JobFolder
from service.training.models import read_models
from service.training.request import TrainingRequest
from service.training.resolved import Machine, ResolvedRequest, resolve, with_class_pictures

ROOT = Path(__file__).resolve().parents[2]
LAYOUTS = {"cerebrium": Layout("dataset/trainingData", "dataset/classData")}
CONVERTER = "tools/attn_procs.py"
WARNINGS = "warnings.json"  # of building
PREPARED = "prepared.json"  # what came of it; it is written last, so that a stage that has it is done


@dataclass(frozen=True)
class Workshop:
    """What the stages work with."""

    jobs_dir: Path
    models_file: Path
    store: Store
    trainers: Trainers
    machine: Machine
    cache: ClassPictureCache
    rules: FetchRules
    own_content: Callable[[Job], Callable[[str], Any]]  # of a job: its project's own files by their URLs
    max_upload_bytes: int
    publisher: Publisher
    limits: Limits = Limits()

    def folder(self, job: Job) -> JobFolder:
        return JobFolder(self.jobs_dir / job.id)

    def resolve(self, request: TrainingRequest) -> ResolvedRequest:
        """With the files that its names stand for here and now; BadInput where there are none. Its `to_json()` is a job's `resolved`."""
        return resolve(request, self.machine, read_models(self.models_file))

    def resolved(self, job: Job) -> ResolvedRequest:
        """What the job's client asked for."""
        if job.resolved is None:
            raise StageFailed("this job was started without inputs")
        try:
            return self.resolve(TrainingRequest.from_json(job.resolved["request"]))
        except (BadInput, UserError) as error:
            raise StageFailed(str(error)) from None

    def trainer(self, job: Job) -> Trainer:
        """The one that the view noted in the job's details."""
        try:
            return self.trainers.select(job.details.get("trainer_version"))
        except BadInput as error:
            raise StageFailed(str(error)) from None


def make_stages(workshop: Workshop) -> dict[str, Stage]:
    return {
        PREPARING: Preparing(workshop),
        TRAINING: Training(workshop),
        BUILDING: Building(workshop),
        PUBLISHING: Publishing(workshop),
    }


class _InProcess:
    """A stage that starts no process."""

    def __init__(self, workshop: Workshop):
        self._workshop = workshop

    def progress(self, job: Job) -> dict[str, Any] | None:
        return None

    def explain(self, job: Job, status: Status) -> str:
        return status.reason

    def leave(self, job: Job) -> None:
        return None


class Preparing(_InProcess):
    """The archives fetched and unpacked. A second time finds done what is done."""

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        folder = self._workshop.folder(job)
        done = folder.stage(PREPARING) / PREPARED
        if not done.exists():
            try:
                self._prepare(job, folder, done, should_stop)
            except (BadArchive, FetchFailed, DiskFull, TooLarge) as error:
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

        layout = LAYOUTS.get(job.api, PLAIN)
        found = unpack(folder.archive, folder.instance_pictures, folder.class_pictures, layout=layout, progress=watch)
        classes, warnings = len(found.classes), list(found.warnings)
        if sources.get("class_data"):
            unless_stopped(lambda: self._get(job, None, sources["class_data"], folder.class_archive), should_stop)
            apart = unpack(folder.class_archive, folder.class_pictures, None, progress=watch)
            classes, warnings = len(apart.instance), [*warnings, *apart.warnings]
        if self._workshop.trainer(job).is_ours:
            warnings += _further_warnings(self._workshop.resolved(job), classes)
        log = [f"{len(found.instance)} pictures, {classes} of the class", *warnings]
        folder.log(PREPARING).write_text("\n".join(log) + "\n", encoding="utf-8")
        facts = {"warnings": warnings, "pictures": {"pictures": len(found.instance), "class_pictures": classes}}
        _write_whole(done, json.dumps(facts))

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

    def leave(self, job: Job) -> None:
        self._progress.pop(job.id, None)
        with suppress(StageFailed):  # the operator has taken away what it was trained with
            if self._workshop.trainer(job).is_ours:
                self._workshop.cache.keep(self._workshop.resolved(job), self._workshop.folder(job))


class Building(_InProcess):
    """output.zip and the package. A LoRA is written as attention processors first, by a process: that needs torch."""

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        if self._has_processors(job):
            return self._converting(job)
        self._build(job, should_stop)
        return None

    def explain(self, job: Job, status: Status) -> str:
        told = told_in(self._workshop.folder(job).log(BUILDING)) or mask(status.reason)
        return f"the LoRA could not be written as attention processors: {told}"

    def end(self, job: Job) -> dict[str, Any]:
        folder = self._workshop.folder(job)
        if self._has_processors(job):
            self._build(job, lambda: False)  # a LoRA is small
        noted = folder.stage(BUILDING) / WARNINGS
        warnings = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else []
        return {"warnings": [*job.warnings, *warnings]}

    def _has_processors(self, job: Job) -> bool:
        """SDXL's layers have other names, which attention processors never had."""
        if not self._workshop.trainer(job).is_ours:
            return False
        resolved = self._workshop.resolved(job)
        return resolved.request.method == "lora" and resolved.base.model.family != "sdxl"

    def _converting(self, job: Job) -> Spec:
        folder = self._workshop.folder(job)
        argv = (sys.executable, str(ROOT / CONVERTER), str(folder.weights()), "--output", str(folder.attention_processors))
        return Spec(
            job_id=job.id, stage=BUILDING, argv=argv, cwd=folder.root, environment={}, log=folder.log(BUILDING), folder=folder.root,
            limits=self._workshop.limits,
        )  # fmt: skip

    def _build(self, job: Job, should_stop: Callable[[], bool]) -> None:
        """Both are made once: what is there is left as it is."""
        folder = self._workshop.folder(job)
        try:
            pack(folder, should_stop)
            warnings: list[str] = []
            if self._workshop.trainer(job).is_ours:
                warnings = self._workshop.publisher.build(job, folder, self._workshop.resolved(job), should_stop)
            folder.stage(BUILDING).mkdir(parents=True, exist_ok=True)
            _write_whole(folder.stage(BUILDING) / WARNINGS, json.dumps(warnings))
        except OSError as error:
            raise StageFailed(f"the result could not be packed: {error.strerror}") from None


class Publishing(_InProcess):
    """The results in the store, under keys of the job; once more changes nothing."""

    def begin(self, job: Job, should_stop: Callable[[], bool]) -> Spec | None:
        for file in result_files(self._workshop.folder(job)):
            if should_stop():
                raise Stopped
            self._workshop.store.save(f"jobs/{job.id}/{file.name}", file.path)
        return None

    def end(self, job: Job) -> dict[str, Any]:
        files = result_files(self._workshop.folder(job))
        listed = [{"name": file.name, "size": file.size, "sha256": file.sha256, "key": f"jobs/{job.id}/{file.name}"} for file in files]
        registered = None
        if self._workshop.trainer(job).is_ours:
            folder = self._workshop.folder(job)
            registered = self._workshop.publisher.register(job, folder, self._workshop.resolved(job))
        version = {"version": registered.name} if registered else {}
        return {"output": {**(job.output or {}), "files": listed, **version}}

    def leave(self, job: Job) -> None:
        shutil.rmtree(self._workshop.folder(job).archive.parent, ignore_errors=True)  # it is unpacked, and in the store


def told_in(log: Path) -> str:
    """The last mistake that a log tells of; empty: it tells of none."""
    lines = log.read_text(encoding="utf-8", errors="replace")[-8192:].splitlines() if log.exists() else []
    told = [line.partition("error: ")[2] for line in lines if "error: " in line]
    return mask(told[-1][:1000].replace("\0", "")) if told else ""  # PostgreSQL takes no NUL


def _sources(job: Job) -> Mapping[str, Any]:
    request = (job.resolved or {}).get("request") or job.inputs
    return {name: request.get(name) for name in ("instance_data", "class_data")}


def _further_warnings(resolved: ResolvedRequest, class_pictures: int) -> list[str]:
    try:
        return list(with_class_pictures(resolved, class_pictures).warnings[len(resolved.warnings) :])
    except BadInput as error:
        raise StageFailed(str(error)) from None


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
