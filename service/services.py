"""What the parts of the service share: made once from the settings, handed to views and workers."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from service.assembly import make_store, make_workshop, read_secret
from service.database.engine import Database
from service.jobs.board import JobBoard
from service.jobs.workshop import Workshop
from service.keys import ANONYMOUS_CALLS_PER_MINUTE, Door, Keys
from service.log_feed import LogFeeds
from service.packages.card import CardLinks
from service.packages.predictions import PredictionBoard
from service.packages.registry import Registry
from service.page.sessions import Sessions
from service.settings import ServiceSettings
from service.storage.store import Store
from service.throttle import Throttle
from service.uploads import Uploads
from service.webhooks.deliveries import Deliveries
from service.webhooks.outbox import Outbox
from service.webhooks.secrets import WebhookSecrets


@dataclass
class Services:
    settings: ServiceSettings
    database: Database
    keys: Keys
    door: Door
    sessions: Sessions  # of the page
    outbox: Outbox
    secrets: WebhookSecrets
    deliveries: Deliveries
    board: JobBoard
    store: Store
    uploads: Uploads
    registry: Registry
    predictions: PredictionBoard
    card_links: CardLinks
    log_feeds: LogFeeds
    workshop: Workshop  # base models, trainers, and what requests mean here


def make_services(settings: ServiceSettings) -> Services:
    """Opens the database, and brings it up to date."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = Database(settings.database)
    database.upgrade()
    keys, outbox, store = Keys(database), Outbox(), make_store(settings)
    workshop = make_workshop(settings, database, store)
    door = Door(keys, Throttle(settings.creates_per_minute), Throttle(settings.calls_per_minute), Throttle(ANONYMOUS_CALLS_PER_MINUTE))
    return Services(
        settings=settings,
        database=database,
        keys=keys,
        door=door,
        sessions=Sessions(database, keys),
        outbox=outbox,
        secrets=WebhookSecrets(database),
        deliveries=Deliveries(database),
        board=JobBoard(database, outbox, settings.queued_jobs_per_project),
        store=store,
        uploads=Uploads(database),
        registry=workshop.publisher.registry,
        predictions=PredictionBoard(database, outbox),
        card_links=CardLinks(settings.url, read_secret(settings.data_dir / "secret")),
        log_feeds=LogFeeds(),
        workshop=workshop,
    )


async def services_of(request: Request) -> Services:
    """A dependency of views: `services: Annotated[Services, Depends(services_of)]`."""
    return request.app.state.services
