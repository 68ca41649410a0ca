"""What becomes of a training: packed and made a package (building), handed over and registered (publishing)."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.database.tables import Job
from service.executors.base import Spec, Status
from service.jobs.results import pack, result_files
from service.jobs.stages import StageFailed, Stopped
from service.jobs.states import BUILDING
from service.jobs.workshop import InProcess, told_in
from service.masking import mask
from service.storage.space import means_full
from service.training.job_folder import write_whole

ROOT = Path(__file__).resolve().parents[2]
CONVERTER = "tools/attn_procs.py"
WARNINGS = "warnings.json"  # of building


class _Handing(InProcess):
    """Packages are made for others: of a job that does not succeed, none is left."""

    def take_back(self, job: Job) -> None:
        self._workshop.publisher.take_back(job, self._workshop.folder(job))


class Building(_Handing):
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
            write_whole(folder.stage(BUILDING) / WARNINGS, json.dumps(warnings))
        except OSError as error:
            if means_full(error):  # which is told alike in all stages
                raise
            raise StageFailed(f"the result could not be packed: {error.strerror}") from None


class Publishing(_Handing):
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
