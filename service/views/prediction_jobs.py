"""Predictions as the APIs show them, and what all of them do to make one."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.concurrency import run_in_threadpool

from service.database.tables import Prediction
from service.identifiers import iso
from service.keys import Caller
from service.packages.inputs import mistakes_in
from service.packages.predictions import FINAL, NewPrediction
from service.packages.registry import Registered
from service.problems import FieldMistake, Problem, invalid
from service.services import Services
from service.storage.store import LONGEST_GET_SECONDS
from service.views.replicate_jobs import check_address, webhook_of

WAIT = re.compile(r"(?:^|[,;\s])wait(?:\s*=\s*(\d{1,4}))?(?:$|[,;\s])")
LONGEST_WAIT = 60.0  # seconds
BEFORE_TIME = 1.0  # seconds: Replicate's client hangs up half a second after what it asked for, and has waited a moment already
SHORTEST_WAIT = 0.5  # seconds
ASK_SECONDS = 0.2


def make_prediction(
    services: Services, caller: Caller, registered: Registered, inputs: Mapping[str, Any], webhook: str | None = None,
    events: Sequence[str] | None = None,
) -> Prediction:  # fmt: skip
    """Checked as far as the version's schema goes: a Problem names every input that it does not take."""
    schema = registered.version.card["inputs"]
    wrong = mistakes_in(inputs, schema)
    if wrong:
        raise invalid([FieldMistake(f"input.{name}", message) for name, message in wrong.items()])
    for name, value in inputs.items():
        if schema["properties"][name].get("format") == "uri" and isinstance(value, str):
            check_address(services, f"input.{name}", value)
    told = webhook_of(services, webhook, None, events)
    new = NewPrediction(
        version_id=registered.version.id, model_id=registered.model.id, model=f"{registered.model.owner}/{registered.model.name}",
        inputs=inputs, webhook=told.url, webhook_events=told.events,
    )  # fmt: skip
    return services.predictions.create(caller, new)


def seconds_to_wait(prefer: str) -> float:
    """So long that the answer comes before `Prefer: wait` or `wait=10` is over; 0: it does not ask to wait."""
    found = WAIT.search(prefer)
    if found is None:
        return 0.0
    asked = min(LONGEST_WAIT, float(found[1] or LONGEST_WAIT))
    return max(SHORTEST_WAIT, asked - BEFORE_TIME)


async def when_done(services: Services, prediction: Prediction, seconds: float) -> Prediction:
    """The prediction when it is over, or when so many seconds are; nothing is held up meanwhile."""
    deadline = time.monotonic() + seconds
    while prediction.state not in FINAL and (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(ASK_SECONDS, left))
        found = await run_in_threadpool(services.predictions.find, prediction.project_id, prediction.id)
        if found is None:
            raise Problem(410, "Gone", "this prediction was deleted meanwhile")
        prediction = found
    return prediction


def prediction_view(services: Services, prediction: Prediction) -> dict[str, Any]:
    """As Replicate's API has it. Pictures are signed URLs, good for a day."""
    address = f"{services.settings.url}/v1/predictions/{prediction.id}"
    metrics = {}
    if prediction.completed_at is not None:
        metrics["total_time"] = prediction.completed_at - prediction.created_at
        if prediction.started_at is not None:
            metrics["predict_time"] = prediction.completed_at - prediction.started_at
    output = [services.store.get_url(key, seconds=LONGEST_GET_SECONDS) for key in prediction.output] if prediction.output else None
    return {
        "id": prediction.id, "model": prediction.model, "version": prediction.version_id, "status": prediction.state,
        "input": prediction.inputs, "output": output, "logs": prediction.logs, "error": prediction.error, "metrics": metrics,
        "created_at": iso(prediction.created_at), "started_at": iso(prediction.started_at),
        "completed_at": iso(prediction.completed_at), "urls": {"get": address, "cancel": f"{address}/cancel"}, "source": "api",
        "data_removed": False,
    }  # fmt: skip
