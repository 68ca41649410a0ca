"""Tiyaro's URL of a trained model: /v1/ent/VENDOR/VERSION/NAME, asked with a prompt, answered with pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from service.database.tables import Prediction
from service.keys import Trainer
from service.packages.predictions import FINAL, SUCCEEDED
from service.packages.registry import Registered
from service.problems import Problem, not_found
from service.services import Services, services_of
from service.views.prediction_jobs import make_prediction, when_done

router = APIRouter(prefix="/v1/ent", tags=["Tiyaro"])
Given = Annotated[Services, Depends(services_of)]
NAMES = {"steps": "num_inference_steps"}  # Tiyaro's, and the package's
WITHOUT_EFFECT = ("disable_safety_checker",)  # packages have none
SCHEDULERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPMSolverMultistep",
    "EulerAncestralDiscreteScheduler": "K_EULER_ANCESTRAL",
    "EulerDiscreteScheduler": "K_EULER",
    "HeunDiscreteScheduler": "HeunDiscrete",
    "LMSDiscreteScheduler": "KLMS",
    "PNDMScheduler": "PNDM",
    "UniPCMultistepScheduler": "UniPCMultistep",
}
START_SECONDS = 300.0  # of what a package needs until it can draw


class Asked(BaseModel):
    input: dict[str, Any]


@router.post("/{vendor}/{version}/{name:path}")
async def draw(
    vendor: str, version: str, name: str, body: Asked, caller: Trainer, services: Given, serviceTier: str | None = None
) -> dict[str, Any]:
    """Answers when the pictures are drawn. `serviceTier` is taken and has no effect: there is one tier, the operator's machine."""
    registered = await run_in_threadpool(services.registry.find, caller.project_id, vendor, name, version)
    if registered is None:
        raise not_found(f"model {vendor[:128]}/{name[:128]} of version {version[:128]}")
    prediction = await run_in_threadpool(make_prediction, services, caller, registered, inputs_of(body.input, registered))
    prediction = await when_done(services, prediction, services.settings.prediction_seconds + START_SECONDS)
    return {"response": {"images": await run_in_threadpool(_pictures, services, prediction)}}


def inputs_of(given: Mapping[str, Any], registered: Registered) -> dict[str, Any]:
    """In the words of the package; null is as good as left out."""
    known = registered.version.card["inputs"]["properties"]
    inputs: dict[str, Any] = {}
    for name, value in given.items():
        if value is None or (name in WITHOUT_EFFECT and name not in known):
            continue
        inputs[NAMES.get(name, name)] = SCHEDULERS.get(value, value) if name == "scheduler" and isinstance(value, str) else value
    return inputs


def _pictures(services: Services, prediction: Prediction) -> list[str]:
    """In base64."""
    if prediction.state not in FINAL:
        services.predictions.cancel(prediction.project_id, prediction.id)
        raise Problem(504, "Too slow", "the pictures were not drawn in time; ask for fewer, or with fewer steps")
    if prediction.state != SUCCEEDED:
        raise Problem(502, "Prediction failed", prediction.error or prediction.state)
    found = []
    for key in prediction.output or ():
        with services.store.open(key) as file:
            found.append(base64.b64encode(file.read()).decode())
    return found
