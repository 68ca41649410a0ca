"""What is looked at outside of a training: what a hub and wandb are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from library.checkpoint.uploads import start_uploads
from library.train.trackers import start_trackers
from tests.fake_hub import FakeHub
from tests.options.looks import calls, if_possible, planned
from tests.options.trials import Trial


@contextmanager
def a_hub(trial: Trial) -> Iterator[FakeHub]:
    constants = "huggingface_hub.constants"
    with FakeHub("me/toads") as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{constants}.ENDPOINT", hub.address)
        patch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}")
        patch.setattr(f"{constants}.HF_HUB_CACHE", str(trial.folder / "hub"))
        patch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
        patch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
        yield hub


def asked_of_hub(trial: Trial) -> Any:
    """What the hub hears before anything is sent."""
    with a_hub(trial) as hub:
        start_uploads(trial.settings.hub, lambda event, **facts: None, lambda: False)
        return hub.created, hub.tokens


def _sent(trial: Trial) -> tuple[list[str], int]:
    """The files on the hub after a training, and how often it waited for them."""
    with a_hub(trial) as hub:
        waits = calls("library.checkpoint.uploads.Uploads.wait")(trial)
        return sorted(hub.files), len(waits)


def places_on_hub(trial: Trial) -> Any:
    return {name.partition("/")[0] for name in trial.bench.seen(_sent, trial)[0]}


def states_on_hub(trial: Trial) -> Any:
    return [name for name in trial.bench.seen(_sent, trial)[0] if "toad-state/" in name]


def waits_for_hub(trial: Trial) -> Any:
    return trial.bench.seen(_sent, trial)[1]


def fetched(trial: Trial) -> Any:
    with a_hub(trial):
        return if_possible(planned)(trial)


def told_to_wandb(trial: Trial) -> Any:
    """What a wandb that is installed would be started with."""
    started: list[dict[str, Any]] = []
    wandb = ModuleType("wandb")
    wandb.__spec__ = ModuleSpec("wandb", None)
    vars(wandb).update(init=lambda **values: started.append(values), Settings=dict)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "wandb", wandb)
        start_trackers(trial.plan)
    return trial.plain([{**values, "dir": None} for values in started])
