"""Tells the parts of the service what the views need of them."""

from __future__ import annotations

from service.services import Services
from service.views.replicate_jobs import EXPERIMENTAL, OFFICIAL, experimental_view, official_view


def connect(services: Services) -> None:
    """Webhooks show a training as its API does."""
    services.outbox.show_jobs_of(OFFICIAL, lambda job: official_view(services, job))
    services.outbox.show_jobs_of(EXPERIMENTAL, lambda job: experimental_view(services, job))
