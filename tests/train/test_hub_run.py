"""Whole runs with a hub: what they save arrives there, a run goes on from there, and the token is told to nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fake_hub import FakeHub
from tests.train.runs import Workshop, make_workshop, tensors_hash

TOKEN = "hf_hunter2hunter2"
OPTIONS = {"max_train_steps": 4, "save_every_n_steps": 2, "save_last_n_steps": 1, "save_state": True}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="processes are told of the hub's address through fork")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.mktemp("workshop"), **OPTIONS)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub("me/toads") as server:
        yield server


def constants(address: str, cache: Path) -> dict[str, Any]:
    """What HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_DISABLE_XET set before the hub's library is imported."""
    values = {
        "ENDPOINT": address,
        "HUGGINGFACE_CO_URL_TEMPLATE": address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
    }
    return {f"huggingface_hub.constants.{name}": value for name, value in values.items()}


def test_a_run_uploads_and_another_goes_on_from_the_hub(workshop: Workshop, hub: FakeHub, tmp_path: Path) -> None:
    told = constants(hub.address, tmp_path / "cache")
    options = {"huggingface_repo_id": "me/toads", "huggingface_path_in_repo": "runs", "huggingface_token": TOKEN}
    first = workshop.train("first", constants=told, async_upload=True, save_state_to_huggingface=True, logging_dir=str(tmp_path), log_config=True, **options)
    assert first.code == 0, first.output
    names = ["toad-step00000002", "toad-step00000004", "toad"]
    assert {name for name in hub.files if name.endswith(".safetensors") and "-state/" not in name} == {f"runs/{name}.safetensors" for name in names}
    assert {name.split("/")[1] for name in hub.files if "-state/" in name} == {f"{name}-state" for name in names}
    here = workshop.output("first")
    assert hub.files["runs/toad.safetensors"] == (here / "toad.safetensors").read_bytes()
    assert not (here / "toad-step00000002.safetensors").exists()  # gone after its upload
    events = [event["event"] for event in workshop.events("first")]
    assert events.count("uploaded") == 6
    assert events[-1] == "end"

    written = [path for folder in (here, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {"events.jsonl", "config.toml", "train_state.json", "hparams.yml"}
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in first.output
    assert not any(TOKEN.encode() in content for content in hub.files.values())

    resume = {"resume": "me/toads/runs/toad-step00000002-state", "resume_from_huggingface": True}
    second = workshop.train("second", constants=told, **resume)
    assert second.code == 0, second.output
    assert tensors_hash(workshop.output("second") / "toad.safetensors") == tensors_hash(here / "toad.safetensors")


def test_a_hub_that_refuses_late_costs_nothing_here(workshop: Workshop, hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/preupload/"] = [403] * 100
    told = constants(hub.address, tmp_path / "cache")
    done = workshop.train("refused", constants=told, huggingface_repo_id="me/toads", huggingface_token=TOKEN)
    assert done.code == 0, done.output
    here = workshop.output("refused")
    assert {f"{name}.safetensors" for name in ("toad", "toad-step00000002", "toad-step00000004")} <= {path.name for path in here.iterdir()}
    assert f'hf upload me/toads "{here / "toad.safetensors"}" "toad.safetensors"' in done.output
    assert TOKEN not in done.output
    assert hub.files == {}


@pytest.mark.parametrize(
    ("fault", "options", "said"),
    [
        ({"/api/whoami-v2": [401]}, {"huggingface_repo_id": "me/toads"}, "the hub refuses: Invalid user token"),
        ({}, {"resume": "me/toads/nowhere-state", "resume_from_huggingface": True}, "has no folder nowhere-state"),
    ],
    ids=["token", "state"],
)
def test_a_mistake_is_told_before_a_model_loads(workshop, hub, tmp_path, fault, options, said) -> None:  # noqa: ANN001
    hub.faults.update(fault)
    done = workshop.train("mistaken", constants=constants(hub.address, tmp_path / "cache"), **options, huggingface_token=TOKEN)
    assert done.code == 2
    assert said in done.output
    assert "start" not in [event["event"] for event in workshop.events("mistaken")]
    assert TOKEN not in done.output
