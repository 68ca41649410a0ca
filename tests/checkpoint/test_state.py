"""States: what comes back, what is refused, which one is found."""
from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from library.checkpoint.best import Best
from library.checkpoint.dataset_facts import DatasetIdentity
from library.checkpoint.files import atomic_directory
from library.checkpoint.identity import BaseModel, RunIdentity, check_same_run, run_identity
from library.checkpoint.naming import SavePoint
from library.checkpoint.resume import FoundState, find_state
from library.checkpoint.state import TrainingObjects, load_state, load_weights, loadable, write_state
from library.config.options import NetworkOptions, SavingOptions
from library.config.settings import Settings
from library.errors import UserError

IDENTITY = RunIdentity(
    lineage="abc",
    seed=42,
    processes=1,
    options={"network_dim": 4, "network_args": ["conv_dim=2"], "network_alpha": 1},
    base_model=BaseModel("model.safetensors", "12345678"),
    dataset=DatasetIdentity("f" * 64, images=20, entries=200, batch_sizes=(4,)),
)


class Adapter(nn.Module):
    """As a LoRA: an int buffer without dimensions, a transposed weight, one that two names share."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.down = nn.Linear(3, width, bias=False)
        self.up = nn.Parameter(torch.zeros(width, 2).T)
        self.again = self.down.weight
        self.register_buffer("alpha", torch.tensor(4))


def training(width: int = 4, rate: float = 1e-3, optimizer: str = "AdamW", seed: int = 0) -> TrainingObjects:
    torch.manual_seed(seed)
    module = Adapter(width)
    group = {"params": list(module.parameters()), "lr": rate, "name": "unet"}
    built = getattr(torch.optim, optimizer)([group], lr=rate)
    warm_up = torch.optim.lr_scheduler.LambdaLR(built, lambda step: min(1.0, (step + 1) / 8))
    return TrainingObjects({"network": module}, built, warm_up)


def load(found: FoundState, objects: TrainingObjects) -> list[str]:
    """As a run does it."""
    load_weights(found.folder, objects.modules)
    return load_state(found, objects)


def train(objects: TrainingObjects, steps: range) -> list[torch.Tensor]:
    module = objects.modules["network"]
    for step in steps:
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        (module.down(inputs) @ module.up.T - 1).square().mean().backward()
        objects.optimizer.step()
        objects.optimizer.zero_grad()
        objects.scheduler.step()
    return [tensor.clone() for tensor in module.state_dict().values()]


def save(folder: Path, objects: TrainingObjects, step: int = 5, identity: RunIdentity = IDENTITY) -> FoundState:
    with atomic_directory(folder) as temporary:
        write_state(temporary, objects, SavePoint("step", step, 1), identity)
    return find_state(str(folder), SavingOptions())


@pytest.mark.parametrize("optimizer", ["AdamW", "SGD", "Adagrad", "RMSprop"])
def test_a_continued_run_equals_an_unbroken_one_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    unbroken = train(training(optimizer=optimizer), range(12))
    first = training(optimizer=optimizer)
    train(first, range(5))
    found = save(tmp_path / "last-state", first)
    second = training(optimizer=optimizer, seed=1)
    assert load(found, second) == []
    for one, other in zip(unbroken, train(second, range(found.current_step, 12)), strict=True):
        assert torch.equal(one, other)


def test_what_the_folder_holds(tmp_path: Path) -> None:
    objects = training()
    objects.scaler = torch.amp.GradScaler("cpu")
    save(tmp_path / "last-state", objects)
    assert {path.name for path in (tmp_path / "last-state").iterdir()} == {
        "model.safetensors", "optimizer.bin", "scheduler.bin", "scaler.pt", "train_state.json",
    }  # fmt: skip
    facts = json.loads((tmp_path / "last-state" / "train_state.json").read_text(encoding="utf-8"))
    assert facts.pop("saved_at") > 1.6e9
    files = facts.pop("files")
    assert {name: file["size"] for name, file in files.items()} == {
        name: (tmp_path / "last-state" / name).stat().st_size for name in files
    }
    assert facts == {
        "version": 1,
        "current_epoch": 1,
        "current_step": 5,
        "seed": 42,
        "run": "abc",
        "processes": 1,
        "options": {"network_dim": 4, "network_args": ["conv_dim=2"], "network_alpha": 1},
        "base_model": {"name": "model.safetensors", "short_hash": "12345678"},
        "dataset": {"fingerprint": "f" * 64, "images": 20, "entries": 200, "batch_sizes": [4]},
        "best": None,
    }


def test_the_best_so_far_comes_back(tmp_path: Path) -> None:
    objects = training()
    objects.best = Best("pictures", loss=0.1 + 0.2, step=4, rounds_since=1, last_step=5)
    assert save(tmp_path / "last-state", objects).best == objects.best
    assert save(tmp_path / "other-state", training()).best is None


def test_a_state_from_before_there_was_a_best(tmp_path: Path) -> None:
    save(tmp_path / "last-state", training())
    path = tmp_path / "last-state" / "train_state.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    del facts["best"]
    path.write_text(json.dumps(facts), encoding="utf-8")
    assert find_state(str(path.parent), SavingOptions()).best is None


def test_the_loss_scale_comes_back(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    objects = replace(training(), scaler=scaler)
    found = save(tmp_path / "last-state", objects)
    fresh = torch.amp.GradScaler("cpu")
    load(found, replace(training(), scaler=fresh))
    assert fresh.get_scale() == 1024.0
    load(save(tmp_path / "plain-state", training()), replace(training(), scaler=fresh))  # a state of a float32 run


def test_a_changed_learning_rate_takes_effect_and_is_told(tmp_path: Path) -> None:
    first = training(rate=1e-3)
    train(first, range(3))
    found = save(tmp_path / "last-state", first)
    second = training(rate=5e-4)
    assert load(found, second) == ["the learning rate of unet was 0.001 in the state and is 0.0005 from now on"]
    assert second.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4 * 4 / 8)
    train(second, range(1))
    assert second.optimizer.param_groups[0]["lr"] == pytest.approx(5e-4 * 5 / 8)


def test_another_network_is_refused_by_name(tmp_path: Path) -> None:
    found = save(tmp_path / "last-state", training())
    with pytest.raises(UserError, match=r"of another shape: network\.again, network\.down\.weight, network\.up"):
        load(found, training(width=8))
    other = training()
    other.modules = {"unet": other.modules["network"]}
    with pytest.raises(UserError, match=r"not in the state: unet\.again.*only in the state: network\.again.* and 1 more"):
        load(found, other)


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    found = save(tmp_path / "last-state", training())
    module = Adapter()
    groups = [{"params": [parameter]} for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(groups)
    two_groups = TrainingObjects({"network": module}, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0))
    with pytest.raises(UserError, match=r"optimizer\.bin does not fit this run's AdamW"):
        load(found, two_groups)


def test_values_that_a_safe_load_refuses_are_turned_or_refused(tmp_path: Path) -> None:
    value = {"d": np.float64(0.5), "betas": (0.9, 0.99), "none": None, "size": torch.Size([2])}
    torch.save(loadable(value, "optimizer"), tmp_path / "a.bin")
    assert torch.load(tmp_path / "a.bin", weights_only=True) == value
    with pytest.raises(TypeError, match=r"optimizer\.state\[1\]\.hook holds a function"):
        loadable({"state": [0, {"hook": lambda: None}]}, "optimizer")


def test_a_pickle_that_runs_code_is_not_read(tmp_path: Path) -> None:
    found = save(tmp_path / "last-state", training())
    (found.folder / "optimizer.bin").write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(UserError, match=r"optimizer\.bin is no file of tensors and numbers"):
        load(found, training())
    assert not (tmp_path / "trapped").exists()


class Trap:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def break_state(folder: Path, how: str) -> None:
    if how == "no train_state":
        (folder / "train_state.json").unlink()
    elif how == "torn json":
        (folder / "train_state.json").write_text('{"version": 1, ', encoding="utf-8")
    elif how == "missing keys":
        (folder / "train_state.json").write_text('{"version": 1}', encoding="utf-8")
    elif how == "newer":
        (folder / "train_state.json").write_text('{"version": 99}', encoding="utf-8")
    elif how == "foreign":
        (folder / "train_state.json").write_text('{"current_epoch": 1, "current_step": 5}', encoding="utf-8")
    elif how == "missing":
        (folder / "optimizer.bin").unlink()
    elif how == "truncated":
        (folder / "optimizer.bin").write_bytes((folder / "optimizer.bin").read_bytes()[:100])
    elif how == "flipped":
        content = bytearray((folder / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "model.safetensors").write_bytes(bytes(content))


BROKEN = {
    "no train_state": "not a complete state folder: it has no train_state.json",
    "torn json": r"train_state\.json cannot be read",
    "missing keys": r"train_state\.json lacks base_model, current_epoch",
    "newer": r"another version of Tadpole \(state version 99",
    "foreign": "the state of another program: start from its weights",
    "missing": "optimizer.bin is missing",
    "truncated": r"optimizer.bin has 100 bytes instead of \d+",
    "flipped": "model.safetensors is damaged",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_not_whole_is_refused_when_named_and_skipped_by_latest(tmp_path: Path, how: str) -> None:
    save(tmp_path / "frog-step00000005-state", training())
    save(tmp_path / "frog-step00000010-state", training(), step=10)
    break_state(tmp_path / "frog-step00000010-state", how)
    with pytest.raises(UserError, match=BROKEN[how]):
        find_state(str(tmp_path / "frog-step00000010-state"), SavingOptions())
    found = find_state("latest", SavingOptions(output_dir=str(tmp_path), output_name="frog"))
    assert found.current_step == 5
    assert len(found.skipped) == 1
    assert "frog-step00000010-state" in found.skipped[0]


def test_what_is_no_state_folder(tmp_path: Path) -> None:
    (tmp_path / "frog.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="frog.safetensors is a file: name a state folder"):
        find_state(str(tmp_path / "frog.safetensors"), SavingOptions())
    with pytest.raises(UserError, match="there is no such folder"):
        find_state(str(tmp_path / "frog-state"), SavingOptions())
    with pytest.raises(UserError, match="no complete state folder of frog in"):
        find_state("latest", SavingOptions(output_dir=str(tmp_path / "nowhere"), output_name="frog"))


def set_time(folder: Path, time: float) -> None:
    facts = json.loads((folder / "train_state.json").read_text(encoding="utf-8"))
    (folder / "train_state.json").write_text(json.dumps({**facts, "saved_at": time}), encoding="utf-8")


def test_latest_is_the_newest_of_this_name_by_the_time_it_was_saved(tmp_path: Path) -> None:
    times = {
        "frog-step00000030-state": 1.0,
        "frog-000002-state": 4.0,
        "frog-000003-state": 3.0,
        "frog-state.20240101-000000": 2.0,
        "frog2-state": 9.0,
        "frog-00001-state": 9.0,
        ".frog-000004-state.tmp-0-0-0-0": 9.0,
        "frog-000002-state-copy": 9.0,
    }
    first = save(tmp_path / "frog-state", training()).folder
    for name, time in times.items():
        shutil.copytree(first, tmp_path / name)
        set_time(tmp_path / name, time)
    set_time(first, 0.0)
    options = SavingOptions(output_dir=str(tmp_path), output_name="frog")
    order = []
    while (folder := _latest(options)) is not None:
        order.append(folder.name)
        shutil.rmtree(folder)
    assert order == [
        "frog-000002-state", "frog-000003-state", "frog-state.20240101-000000", "frog-step00000030-state", "frog-state",
    ]  # fmt: skip


def _latest(options: SavingOptions) -> Path | None:
    try:
        return find_state("latest", options).folder
    except UserError:
        return None


def test_latest_without_an_output_name(tmp_path: Path) -> None:
    for name in ("last-state", "at-step00000005-state", "epoch-000001-state"):
        save(tmp_path / name, training())
        assert find_state("latest", SavingOptions(output_dir=str(tmp_path))).folder.name == name


def test_the_identity_comes_back_as_it_was(tmp_path: Path) -> None:
    found = save(tmp_path / "last-state", training())
    assert found.identity == IDENTITY
    assert check_same_run(found.folder, found.identity, IDENTITY) == []


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seed": 7}, r"seed is 7 here and 42 in the state .*: set seed = 42, or leave --resume out"),
    ({"processes": 2}, r"--num_processes is 2 here and 1 in the state .*: set --num_processes 1"),
    ({"options": {"network_dim": 8}}, r"network_dim is 8 here and 4 in the state .*: set network_dim = 4"),
    ({"options": {"network_args": None}}, r"network_args is null here and .*: set network_args = \[\"conv_dim=2\"\]"),
    ({"options": {"optimizer_type": "Lion"}}, r"optimizer_type is \"Lion\" here and \"\" in .*: set optimizer_type = \"\""),
    ({"options": {"network_dim": None}}, r"network_dim is null here and 4 in the state .*: set network_dim = 4"),
    ({"options": {"fused_optimizer_groups": 4}}, r"fused_optimizer_groups is 4 here and null .*: leave fused_optimizer_groups out"),
    ({"base_model": BaseModel("model.safetensors", "00000000")}, r"model.safetensors \(hash 00000000\) here and .*12345678"),
    ({"base_model": BaseModel("other", None)}, "the base model is other here"),
    ({"dataset": replace(IDENTITY.dataset, fingerprint="0", images=21)}, r"has changed \(21 images here, 20 in the state"),
    ({"dataset": replace(IDENTITY.dataset, fingerprint="0")}, "other names, sizes, buckets or repeats"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_what_keeps_a_run_from_going_on(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_same_run(Path("frog-state"), IDENTITY, replace(IDENTITY, **change))


def test_all_differences_are_told_at_once() -> None:
    with pytest.raises(UserError) as raised:
        check_same_run(Path("frog-state"), IDENTITY, replace(IDENTITY, seed=1, processes=2))
    assert len(raised.value.messages) == 2


def test_a_moved_or_renamed_model_is_no_obstacle() -> None:
    renamed = replace(IDENTITY, base_model=BaseModel("renamed.safetensors", "12345678"))
    assert check_same_run(Path("frog-state"), IDENTITY, renamed) == [
        "the base model is renamed.safetensors (hash 12345678) here and model.safetensors (hash 12345678) in the state frog-state"
    ]
    listed = replace(IDENTITY, options={"network_args": ("conv_dim=2",), "network_alpha": 1.0})
    assert check_same_run(Path("frog-state"), IDENTITY, listed) == []  # as it comes from flags


def test_the_identity_of_settings() -> None:
    settings = Settings(network=NetworkOptions(network_module="networks.lora", network_dim=8))
    identity = run_identity(settings, "abc", 42, 1, IDENTITY.dataset)
    assert identity.options["network_module"] == "networks.lora"
    assert identity.options["gradient_accumulation_steps"] == 1
    assert "learning_rate" not in identity.options
    json.dumps(identity.options)
