"""From a finished training to a registered version: which template, what goes into the package, what the card says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.database.tables import Job
from service.packages.card import card_of
from service.packages.cog_package import COG_VERSION, CannotBuild, Ingredients, build, remove_draft
from service.packages.inputs import openapi_of
from service.packages.registry import NewVersion, Registered, Registry, model_name
from service.packages.templates import LORA, Template, Templates
from service.training.fields import BadInput
from service.training.job_folder import JobFolder, write_whole
from service.training.resolved import ResolvedRequest

BUILT = "package.json"  # in the job's folder: what came of it; it is written last
PACKAGES = "packages"  # in data_dir
DESTINATIONS = {"replicate": "destination", "dreambooth": "model"}  # where the job's details name owner/model


@dataclass(frozen=True)
class Publisher:
    """Builds and registers packages of what our trainer leaves."""

    data_dir: Path
    templates: Templates
    registry: Registry
    controlnet: Path | None = None

    def template(self, job: Job, resolved: ResolvedRequest) -> Template:
        """The one that the client asked for, or the usual one; also where there is none of that name, which the client was told."""
        method = resolved.request.method
        try:
            return self.templates.select(job.details.get("template_version"), method)
        except BadInput:
            return self.templates.select(None, method)

    def build(self, job: Job, folder: JobFolder, resolved: ResolvedRequest, should_stop: Callable[[], bool]) -> list[str]:
        """The package of what was trained, once; what the client should know of it. Raises Stopped."""
        done = folder.root / BUILT
        if done.exists():
            return []
        try:
            template = self.template(job, resolved)
            package = build(template, self._ingredients(job, folder, resolved, template), self.data_dir / PACKAGES, should_stop)
        except CannotBuild as error:
            return [f"no package was built: {error}"]
        write_whole(done, json.dumps({"version": package.version_id, "template": template.name}))
        return []

    def register(self, job: Job, folder: JobFolder, resolved: ResolvedRequest) -> Registered | None:
        """The package as a version of the model that the client named; None where there is no package."""
        done = folder.root / BUILT
        if not done.exists():
            return None
        built = json.loads(done.read_text(encoding="utf-8"))
        template = self.templates.known.get(built["template"])
        if template is None:
            return None
        request, version_id = resolved.request, built["version"]
        name = self.name(job, resolved)
        card = card_of(name, request.version or version_id, request.description or "", template.name, template.inputs, resolved.to_json())
        new = NewVersion(
            id=version_id, job_id=job.id, label=request.version, notes=job.details.get("notes"), template=template.name,
            cog_version=COG_VERSION, openapi_schema=openapi_of(template.inputs, name), card=card, folder=f"{PACKAGES}/{version_id}",
        )  # fmt: skip
        return self.registry.add(job.project_id, name, new, request.description)

    def take_back(self, job: Job, folder: JobFolder) -> None:
        """What was built and registered of a job that was canceled, or has failed, is gone; once more changes nothing."""
        packages, done = self.data_dir / PACKAGES, folder.root / BUILT
        remove_draft(packages, job.id)
        if not done.exists():
            return
        version_id = json.loads(done.read_text(encoding="utf-8"))["version"]
        registered = self.registry.by_id(job.project_id, version_id)
        if registered is not None:
            self.registry.remove(registered)
        shutil.rmtree(packages / version_id, ignore_errors=True)
        done.unlink()

    def name(self, job: Job, resolved: ResolvedRequest) -> str:
        """What the model is called, without its owner, who is always the project."""
        destination = job.details.get(DESTINATIONS.get(job.api, ""))
        wanted = str(destination).partition("/")[2] if destination else resolved.request.name or job.name
        return model_name(wanted, job.id)

    def _ingredients(self, job: Job, folder: JobFolder, resolved: ResolvedRequest, template: Template) -> Ingredients:
        weights, base = folder.weights(), resolved.base
        if weights is None:
            raise CannotBuild("the training left no weights")
        if template.weights == LORA and not base.path.is_dir():
            raise CannotBuild(f"{base.model.name} is one file here, and a package of a LoRA needs its base in Diffusers layout")
        named = {"model": base.model.name, "revision": base.revision}
        return Ingredients(weights, job.id, named, self.controlnet)
