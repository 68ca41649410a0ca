"""What works while the service is served: the worker that drives jobs, what draws predictions, the sender of webhooks, the janitor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from service.assembly import address_rules, own_content
from service.executors.base import Sandbox
from service.executors.choose import make_executor, slots_of
from service.executors.devices import is_cpu
from service.executors.local import LocalExecutor
from service.janitor import Janitor
from service.jobs.work import make_stages
from service.jobs.worker import Worker, own_name
from service.packages.drawing_room import DrawingRoom, Sources
from service.packages.predictor import Predictor, PredictorRules
from service.services import Services
from service.settings import ServiceSettings
from service.webhooks.post import Answer, post
from service.webhooks.sender import Sender


class Background:
    """Made with the application; nothing moves before `start`."""

    def __init__(self, services: Services):
        settings = services.settings
        rules = address_rules(settings)

        def send(url: str, body: str, headers: Mapping[str, str]) -> Answer:
            return post(url, body, headers, rules)

        self.sender = Sender(services.database, services.secrets, send)
        self.executor = make_executor(settings)
        self.worker = Worker(services.board, settings, self.executor, slots_of(settings), make_stages(services.workshop))
        predictor = make_predictor(settings)
        self.drawing_room = DrawingRoom(services.predictions, services.registry, predictor, _sources(services), own_name())
        self.janitor = Janitor(services.database, services.store, settings)

    def start(self) -> None:
        self.janitor.start()
        self.sender.start()
        self.worker.start()
        self.drawing_room.start()

    def stop(self) -> None:
        """Jobs run on."""
        self.janitor.stop()
        self.drawing_room.stop()
        self.worker.stop()
        self.sender.stop()


def make_predictor(settings: ServiceSettings) -> Predictor:
    """On this machine, whatever runs the jobs: a picture is not worth a queue."""
    executor = LocalExecutor(settings.data_dir / "runs", cast(Sandbox, settings.sandbox), (settings.data_dir,))
    first = slots_of(settings).slots[0]
    rules = PredictorRules(
        python=(settings.cog_python or cog_python()).absolute(),  # not resolved: an environment is known by its link
        idle_seconds=settings.prediction_idle_seconds,
        prediction_seconds=settings.prediction_seconds,
        device=settings.prediction_device or (None if is_cpu(first) else first),
    )
    return Predictor(executor, rules)


def cog_python(environment: Path = Path(sys.prefix)) -> Path:
    """Of the environment with cog that `launch.py serve` makes in ours (launcher/cog.py), or else ours."""
    found = environment / "cog" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    return found if found.exists() else Path(sys.executable)


def _sources(services: Services) -> Sources:
    settings, workshop = services.settings, services.workshop
    return Sources(
        data_dir=settings.data_dir,
        models_file=workshop.models_file,
        store=services.store,
        rules=workshop.rules,
        own_content=lambda project_id: own_content(settings.url, services.database, services.store, project_id),
    )
