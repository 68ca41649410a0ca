"""What works while the service is served: the worker that drives jobs, the sender of webhooks, the janitor."""

from __future__ import annotations

from collections.abc import Mapping

from service.assembly import address_rules
from service.executors.choose import make_executor, slots_of
from service.janitor import Janitor
from service.jobs.work import make_stages
from service.jobs.worker import Worker
from service.services import Services
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

        self.janitor = Janitor(services.database, services.store, settings)

    def start(self) -> None:
        self.janitor.start()
        self.sender.start()
        self.worker.start()

    def stop(self) -> None:
        """Jobs run on."""
        self.janitor.stop()
        self.worker.stop()
        self.sender.stop()
