"""Trainings of the smallest models in the test's own process, where what is in memory can be compared with what is saved."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor

from library.config.load import load_settings
from library.train.plan import Plan, make_plan
from library.train.run import Run
from library.train.signals import StopRequest
from library.types import TextSettings
from tests.smallest_models import OBJECTIVES, write_smallest
from tests.train.runs import Workshop, write_picture

SAVED_STEP, LAST_STEP = 1, 2
SIZE = (64, 72)  # of samples, in pixels
WORD = "zorb"
LORA = {"network_module": "networks.lora", "network_dim": 2}
LEARNED_WORD = {"token_string": WORD, "caption_prefix": WORD, "num_vectors_per_token": 2}
INVERSION = {**LEARNED_WORD, "save_model_as": "safetensors"}
FAMILIES: dict[str, dict[str, Any]] = {
    "sd1": {},
    "sd2": {"v2": True},
    "sd2_v": {"v2": True, "v_parameterization": True},
    "sdxl": {},
}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("train_network.py", LORA),
    "lora of the U-Net": ("train_network.py", {**LORA, "network_train_unet_only": True}),
    "dreambooth": ("train_db.py", {}),
    "fine-tuning": ("fine_tune.py", {}),
    "inversion": ("train_textual_inversion.py", INVERSION),
    "inversion by layer": ("train_textual_inversion_XTI.py", INVERSION),
    "pivotal": ("train_network.py", {**LORA, **LEARNED_WORD}),
}
PRECISIONS = {"fp32": "no", "bf16": "bf16"}
SAVING = {"save_every_n_steps": SAVED_STEP, "save_state": True}
CACHES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "latents": {"cache_latents": True},
    "latents and text": {"cache_latents": True, "cache_text_encoder_outputs": True, "text_encoder_batch_size": 1},
}


@dataclass(frozen=True)
class Row:
    """A training: its family, its method, its precision, and what is cached."""

    family: str
    method: str
    precision: str
    cached: str

    def __str__(self) -> str:
        return "-".join((self.family, self.method, self.precision, self.cached))

    @property
    def saves_states(self) -> bool:
        """So that it can be resumed. With bf16, too, the trained weights and all that belongs to them are fp32."""
        return self.precision == "fp32"


@dataclass(frozen=True)
class Outcome:
    """What a training that nothing disturbed has come to. Bits are digests of tensors by name."""

    before: dict[str, str]  # bits when it began
    after: dict[str, str]  # bits at its end
    losses: list[float]
    prediction: Tensor  # of the model in memory
    sample: Image.Image
    folder: Path  # with all that it has saved
    struck: Path  # where states are saved: the folder as it was in the middle of the last step, as a kill would have left it


@dataclass(frozen=True)
class Studio:
    """Pictures and models, on which rows are trained."""

    folder: Path
    _unbroken: dict[Row, Outcome] = field(default_factory=dict)

    def plan(self, row: Row, output: Path, **more: Any) -> Plan:
        """The plan of a row; `more`: options beside its own."""
        workshop = self._workshop(row)
        settings = load_settings(workshop.script, ["--config_file", str(workshop.config(output.name, **more))])
        assert settings is not None
        return make_plan(settings)

    def prepared(self, row: Row, output: Path, **more: Any) -> Run:
        """A training that is about to begin."""
        forget_precision()
        return Run(self.plan(row, output, **more), StopRequest())

    def resumed(self, row: Row) -> tuple[dict[str, str], list[float]]:
        """Bits and losses of a training that goes on from what a kill has left."""
        run = self.prepared(row, self.unbroken(row).struck, **SAVING, resume="latest")
        assert run.plan.length.first_step == LAST_STEP
        assert run.run() == 0
        return bits(run), self._losses(row, run.plan.output_dir)

    def unbroken(self, row: Row) -> Outcome:
        """Each row is trained once, whichever test asks first."""
        if row not in self._unbroken:
            self._unbroken[row] = self._trained(row)
        return self._unbroken[row]

    def _trained(self, row: Row) -> Outcome:
        output, struck = self.folder / str(row), self.folder / f"{row}-struck"
        prompts = str(self.folder / "prompts.txt")
        states = SAVING if row.saves_states else {}
        run = self.prepared(row, output, **states, sample_prompts=prompts, sample_every_n_steps=LAST_STEP)
        before = bits(run)
        if states:
            in_last_step(run, lambda: shutil.copytree(output, struck))
        assert run.run() == 0
        (picture,) = (output / "sample").glob("toad_0*.png")
        with Image.open(picture) as sample:
            sample.load()
        return Outcome(before, bits(run), self._losses(row, output), prediction(run), sample, output, struck)

    def _losses(self, row: Row, output: Path) -> list[float]:
        """By step; of a step that was taken twice the later one."""
        events = self._workshop(row).events(output.name)
        return list({event["step"]: event["loss"] for event in events if event["event"] == "step"}.values())

    def _workshop(self, row: Row) -> Workshop:
        script, of_method = METHODS[row.method]
        model = f"{row.family}-sixteen" if row.method == "inversion by layer" and row.family != "sdxl" else row.family
        options = {
            "pretrained_model_name_or_path": str(self.folder / model),
            "train_data_dir": str(self.folder / "data"),
            "resolution": 64,
            "caption_extension": ".txt",
            "seed": 1,
            "learning_rate": 1e-3,
            "max_train_steps": LAST_STEP,
            "max_data_loader_n_workers": 0,
            "mixed_precision": PRECISIONS[row.precision],
        }
        return Workshop(self.folder, options | of_method | FAMILIES[row.family] | CACHES[row.cached], script)


def make_studio(folder: Path) -> Studio:
    """A picture for each step."""
    pictures = folder / "data" / "1_toad"
    pictures.mkdir(parents=True)
    for number in range(LAST_STEP):
        write_picture(pictures / f"{number}.png", number)
        (pictures / f"{number}.txt").write_text(f"toad {number}, green", encoding="utf-8")
    (folder / "prompts.txt").write_text(f"a {WORD} --w {SIZE[0]} --h {SIZE[1]} --s 1 --l 1 --d 1\n", encoding="utf-8")
    for name in OBJECTIVES:
        write_smallest(folder / name, name)
        if name != "sdxl":
            write_smallest(folder / f"{name}-sixteen", name, sixteen_attentions=True)
    return Studio(folder)


def forget_precision() -> None:
    """accelerate holds one for the whole process, and trainings here differ in it."""
    AcceleratorState._reset_state(reset_partial_state=True)


def in_last_step(run: Run, happens: Callable[[], object]) -> None:
    """Let something happen when the gradients of the last step are there, before any weight has moved."""
    backward, calls = run.runtime.backward, 0

    def watched(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        backward(*arguments)
        if calls == LAST_STEP:
            happens()

    run.runtime.backward = watched  # type: ignore[method-assign]


def bits(run: Run) -> dict[str, str]:
    """A digest of each tensor that the training holds: `unet.`, `vae.`, `text_encoder1.`, `text_encoder2.`, `network.`."""
    parts = run.parts
    modules = {"unet": parts.unet, "vae": parts.vae}
    modules |= {f"text_encoder{number}": encoder for number, encoder in enumerate(parts.text_encoders, 1)}
    modules |= {name: module for name, module in run.method.modules().items() if name == "network"}
    return {f"{name}.{key}": _digest(tensor) for name, module in modules.items() for key, tensor in module.state_dict().items()}


def _digest(tensor: Tensor) -> str:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(content).hexdigest()}"


@torch.no_grad()
def prediction(run: Run) -> Tensor:
    """What the model with all that it has learned says of latents that are always the same."""
    run.method.eval()
    family, parts, device = run.plan.family, run.parts, run.runtime.device
    latents = torch.randn(2, family.channels, 8, 8, generator=torch.Generator().manual_seed(7))
    words = " ".join([WORD, *(token for token in parts.tokenizers[0].get_added_vocab() if token.startswith(WORD))])
    with run.runtime.autocast():
        conditioning = family.encode_text(parts, [f"a {words} on a stone", "toad"], TextSettings())
        latents, timesteps = latents.to(device, run.runtime.frozen_dtype), torch.tensor([20, 700], device=device)
        return family.predict(parts, latents, timesteps, conditioning, None)


def differing(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """The names of tensors that are not the same to the bit."""
    assert before.keys() == after.keys()
    return {name for name, digest in before.items() if digest != after[name]}
