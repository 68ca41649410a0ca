"""Tells the parts of the service what the views need of them."""

from __future__ import annotations

from service.services import Services
from service.views.cerebrium import API as CEREBRIUM
from service.views.cerebrium import start_uploaded
from service.views.prediction_jobs import prediction_view
from service.views.replicate_jobs import EXPERIMENTAL, OFFICIAL, experimental_view, official_view


def connect(services: Services) -> None:
    """Webhooks show trainings and predictions as their API does; Cerebrium's jobs start with the end of their upload."""
    services.predictions.show(lambda prediction: prediction_view(services, prediction))
    services.outbox.show_jobs_of(OFFICIAL, lambda job: official_view(services, job))
    services.outbox.show_jobs_of(EXPERIMENTAL, lambda job: experimental_view(services, job))
    services.uploads.when_whole(CEREBRIUM, lambda job: start_uploaded(services, job))
