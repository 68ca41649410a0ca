"""Trainings with some options, as far as somebody looks at them: their plan, their batches, their losses, a whole tiny training."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open
from torch import Tensor

from library.config.load import Settings, load_settings
from library.config.settings import options_for
from library.families.sd import StableDiffusion
from library.families.sdxl import StableDiffusionXL
from library.train.batches import make_batches
from library.train.plan import Plan, make_plan
from library.train.run import Run
from library.train.signals import StopRequest
from library.types import Batch, Parts
from tests.options.material import WORD, make_data, make_models
from tests.tiny_models import read_again

ORDINARY: dict[str, Any] = {
    "pretrained_model_name_or_path": "{bench}/model",
    "train_data_dir": "{here}/data",
    "output_dir": "{here}/out",
    "output_name": "toad",
    "resolution": 64,
    "caption_extension": ".txt",
    "seed": 1,
    "learning_rate": 1e-3,
    "max_train_steps": 1,
    "max_data_loader_n_workers": 0,
    "network_module": "networks.lora",
    "network_dim": 2,
}
OF_WORDS = {"token_string": WORD, "save_model_as": "safetensors"}
ORDINARY_OF = {
    "train_textual_inversion.py": OF_WORDS,
    "train_textual_inversion_XTI.py": {**OF_WORDS, "pretrained_model_name_or_path": "{bench}/deep"},
    "sdxl_train_textual_inversion.py": OF_WORDS,
}
LOADED = {"train_network.py": "lora", "train_textual_inversion.py": "words", "train_textual_inversion_XTI.py": "words-by-layer"}
EPOCHS = 2  # whose batches are looked at
LOSSES = 2  # batches whose loss is computed


@dataclass
class Bench:
    """Tiny models, and what trials share."""

    folder: Path
    _trials: dict[str, Trial] = field(default_factory=dict)
    _loaded: dict[Any, Parts] = field(default_factory=dict)
    _waiting: dict[str, Run] = field(default_factory=dict)
    _seen: dict[Any, Any] = field(default_factory=dict)
    _count: int = 0
    _learning: bool = False  # of words, which the next model's tokenizers are to hold

    def trial(self, script: str, options: Mapping[str, Any]) -> Trial:
        """A training by this script; the same one for the same options."""
        key = json.dumps([script, options], sort_keys=True)
        if key not in self._trials:
            self._trials[key] = self.fresh(script, options)
        return self._trials[key]

    def seen(self, look: Callable[[Trial], Any], trial: Trial) -> Any:
        """What the look finds in the trial; it looks once."""
        key = (look, id(trial))
        if key not in self._seen:
            self._seen[key] = look(trial)
        return self._seen[key]

    def fresh(self, script: str, options: Mapping[str, Any]) -> Trial:
        """One of which nothing is made yet."""
        self._count += 1
        folder = self.folder / "trials" / str(self._count)
        make_data(folder)
        return Trial(self, script, dict(options), folder)

    def waiting(self, script: str) -> Run:
        """A training by this script that never begins, with whose model the losses of others are computed."""
        if script not in self._waiting:
            self._waiting[script] = self.trial(script, {}).prepared()
        return self._waiting[script]

    def run(self, plan: Plan) -> Run:
        self._learning = bool(plan.settings.embedding.token_string)
        return Run(plan, StopRequest())

    @contextmanager
    def open(self) -> Iterator[None]:
        """Inside, models that were loaded before are copied, which is quicker; and nothing needs to outlive the machine."""
        make_models(self.folder)
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
            for family in (StableDiffusion, StableDiffusionXL):
                patch.setattr(family, "load", self._remembering(family.load))
            patch.setattr(os, "fsync", lambda _: None)
            patch.setattr("library.data.loader._cpu_threads", lambda: 3)
            self._train_what_is_loaded()
            yield

    def _remembering(self, load: Callable[..., Parts]) -> Callable[..., Parts]:
        def remembered(family: Any, options: Any, dtype: torch.dtype, device: Any) -> Parts:
            key = (options, dtype)
            if key not in self._loaded or options.disable_mmap_load_safetensors:
                self._loaded[key] = load(family, options, dtype, device)
            parts = self._loaded[key]
            unet, encoders, vae = copy.deepcopy([parts.unet, parts.text_encoders, parts.vae])
            tokenizers = [read_again(tokenizer) for tokenizer in parts.tokenizers] if self._learning else parts.tokenizers
            return Parts(unet, encoders, tokenizers, vae)

        return remembered

    def _train_what_is_loaded(self) -> None:
        for script, name in LOADED.items():
            trial = self.fresh(script, {"seed": 2})
            assert trial.prepared().run() == 0
            (trial.folder / "out" / "toad.safetensors").rename(self.folder / f"{name}.safetensors")


@dataclass
class Trial:
    """A training with some options beside the ordinary ones; one that is None is left out. What is asked for is made once."""

    bench: Bench
    script: str
    options: dict[str, Any]
    folder: Path

    def fresh(self) -> Trial:
        """The same once more, for whoever changes something in it."""
        return self.bench.fresh(self.script, self.options)

    def filled(self, text: str) -> str:
        return text.replace("{here}", self.folder.as_posix()).replace("{bench}", self.bench.folder.as_posix())

    def plain(self, value: Any) -> Any:
        """As a text that does not tell where the trial's folder is."""
        return repr(value).replace(self.folder.as_posix(), "").replace(str(self.folder), "")

    @cached_property
    def config(self) -> Path:
        ordinary = ORDINARY | ORDINARY_OF.get(self.script, {})
        values = {name: value for name, value in ordinary.items() if name in options_for(self.script)} | self.options
        lines = [f"{name} = {self.filled(json.dumps(value))}\n" for name, value in values.items() if value is not None]
        path = self.folder / "run.toml"
        path.write_text("".join(lines), encoding="utf-8")
        return path

    @cached_property
    def settings(self) -> Settings:
        settings = load_settings(self.script, ["--config_file", str(self.config)])
        assert settings is not None
        return settings

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.settings)

    def prepared(self) -> Run:
        """Everything is loaded, nothing has begun."""
        plan = self.plan  # first: a mistake in it leaves accelerate as it is
        AcceleratorState._reset_state(reset_partial_state=True)  # of the training before, which had another precision perhaps
        return self.bench.run(plan)

    def loaded_batches(self) -> Iterator[Batch]:
        """As the training gets them: from the loader, and from caches that are filled before."""
        run, length = self.bench.waiting(self.script), self.plan.length
        longer = replace(length, last_step=max(length.last_step, EPOCHS * length.steps_per_epoch))
        return make_batches(replace(self.plan, length=longer), run.parts, run.runtime, run.encode_pictures).training

    @cached_property
    def batches(self) -> list[Batch]:
        """Of the first epochs."""
        return list(islice(self.loaded_batches(), EPOCHS * self.plan.batches_per_epoch))

    @cached_property
    def losses(self) -> list[list[float]]:
        """Of each sample of the first batches, with the model as it is."""
        run = copy.copy(self.bench.waiting(self.script))
        run.plan = self.plan
        batch_loss = run._batch_loss()
        with torch.no_grad():
            return [batch_loss(batch).tolist() for batch in islice(self.loaded_batches(), LOSSES)]

    @cached_property
    def beginning(self) -> Beginning:
        run = self.prepared()
        parts = run.parts
        modules = {"unet": parts.unet, "vae": parts.vae, **run.method.modules()}
        modules |= {f"text_encoder{number}": encoder for number, encoder in enumerate(parts.text_encoders, 1)}
        tensors = {f"{name}.{key}": tensor for name, module in modules.items() for key, tensor in module.state_dict().items()}
        return Beginning(digests(tensors), {group["name"]: group["lr"] for group in run.optimizer.param_groups})

    @cached_property
    def result(self) -> Result:
        run = self.prepared()
        assert run.run() == 0
        tensors = {f"{name}.{key}": tensor for name, module in run.method.modules().items() for key, tensor in module.state_dict().items()}
        log = run.record.events.path.read_text(encoding="utf-8").splitlines()
        headers, stored = {}, {}
        for path in sorted(self.plan.output_dir.rglob("*.safetensors")):
            if "toad-runs" in path.parts:
                continue
            with safe_open(path, framework="pt") as file:
                headers[path.name] = file.metadata()
                stored |= {f"{path.parent.name} {key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        found = Result(digests(tensors), [json.loads(line) for line in log], self.files(), headers, digests(stored))
        shutil.rmtree(self.plan.output_dir)  # whole models fill the disk
        return found

    def files(self) -> dict[str, str]:
        """All files of the trial but the records of runs: digests by name."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and "toad-runs" not in path.parts]
        return {path.relative_to(self.folder).as_posix(): hashlib.blake2b(path.read_bytes()).hexdigest() for path in sorted(paths)}


@dataclass(frozen=True)
class Beginning:
    """What a training begins with."""

    bits: dict[str, str]  # of the model and of what is trained beside it
    rates: dict[str, float]  # by group of parameters


@dataclass(frozen=True)
class Result:
    """What a training has come to."""

    bits: dict[str, str]  # of what was trained
    events: list[dict[str, Any]]
    files: dict[str, str]
    headers: dict[str, dict[str, str]]  # of saved files
    stored: dict[str, str]  # digests of the tensors in saved files


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Of types, shapes and bits."""
    return {name: f"{tensor.dtype} {tuple(tensor.shape)} {_digest(tensor)}" for name, tensor in tensors.items()}


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(content, digest_size=16).hexdigest()
