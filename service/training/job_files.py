"""The files that start a job's training: run.toml, dataset.toml, prompts.toml.

Only what is named here reaches the trainer. No option that imports a module, names a path or holds a token comes from a request; texts
of a request are TOML strings, never names of folders, lines of prompts or words of a command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from library.config.check import check_settings
from library.config.dump import toml_value
from library.config.scripts import SCRIPTS
from library.config.settings import options_for, settings_of
from library.config.values import value_from_file
from library.errors import UserError
from service.training.advanced import SCRIPT_OF
from service.training.fields import BadInput, FieldProblem
from service.training.job_folder import OUTPUT_NAME, JobFolder, write_whole
from service.training.request import MOST_SEED
from service.training.resolved import ResolvedRequest

STATE_EVERY = 500  # steps: what a machine that fails may cost
NETWORK_DIM = 4  # as in Diffusers' attention processors, whose strength is 1
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


@dataclass(frozen=True)
class Launch:
    """What starts a training: a script of the project with arguments, and what its environment holds besides."""

    script: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1


def write_run(resolved: ResolvedRequest, folder: JobFolder) -> Launch:
    """Write the files of a job whose pictures are in its folder, and say what starts it; again, to go on after a break."""
    folder.output.mkdir(parents=True, exist_ok=True)
    _write(folder.dataset_file, _dataset(resolved, folder))
    if resolved.request.sample_count:
        _write(folder.prompts_file, {"prompt": {"subset": _prompts(resolved)}})
    _write(folder.run_file, run_options(resolved, folder))
    used = {name: value for name, value in resolved.to_json().items() if name != "request"}
    write_whole(folder.arguments_file, json.dumps(used, indent=1, ensure_ascii=False) + "\n")
    going_on = ("--resume", "latest") if folder.has_state() else ()
    arguments = ("--config_file", str(folder.run_file), *going_on)
    return Launch(SCRIPT_OF[resolved.request.method], arguments, dict(_OFFLINE), resolved.processes)


def shown_run(resolved: ResolvedRequest) -> str:
    """run.toml for people: with registered names in the place of this machine's paths."""
    values = run_options(resolved, JobFolder(Path("job")))
    values["pretrained_model_name_or_path"] = resolved.base.model.name
    if resolved.base.vae_name is not None:
        values["vae"] = resolved.base.vae_name
    return "\n".join(_toml(values)) + "\n"


def check_together(resolved: ResolvedRequest) -> None:
    """BadInput with every option under "advanced" that does not go with another; the pictures are not looked at."""
    values = run_options(resolved, JobFolder(Path("job")))
    options = options_for(SCRIPT_OF[resolved.request.method])
    try:
        read = {name: value_from_file(options[name], value) for name, value in values.items()}
        check_settings(settings_of(read, SCRIPTS[SCRIPT_OF[resolved.request.method]]))
    except UserError as error:
        problems = []
        for message in error.messages:
            name, _, told = message.partition(" (default): ")
            field = f"advanced.{name}" if name in resolved.request.advanced else "advanced"
            problems.append(FieldProblem(field, told or message))
        raise BadInput(problems) from None


def run_options(resolved: ResolvedRequest, folder: JobFolder) -> dict[str, Any]:
    """What run.toml holds."""
    request, base = resolved.request, resolved.base
    values = {
        "pretrained_model_name_or_path": str(base.path),
        "vae": str(base.vae_path) if base.vae_path else None,
        "v_parameterization": base.model.v_parameterization or None,
        "no_token_padding": None if request.pad_tokens else True,
        "dataset_config": str(folder.dataset_file),
        "cache_latents": request.center_crop or None,
        "paired_prior": resolved.with_prior_preservation or None,
        "prior_loss_weight": request.prior_loss_weight if resolved.with_prior_preservation else None,
        "learning_rate": resolved.learning_rate,
        "optimizer_type": resolved.optimizer_type,
        "optimizer_args": [
            f"betas={request.adam_beta1!r},{request.adam_beta2!r}",
            f"weight_decay={request.adam_weight_decay!r}",
            f"eps={request.adam_epsilon!r}",
        ],
        "max_grad_norm": request.max_grad_norm,
        **_schedule(resolved),
        **_length(resolved, folder),
        "seed": request.seed,
        "gradient_accumulation_steps": request.gradient_accumulation_steps,
        "gradient_checkpointing": request.gradient_checkpointing or None,
        "mixed_precision": resolved.mixed_precision,
        "output_dir": str(folder.output),
        "output_name": OUTPUT_NAME,
        "save_precision": "fp16",
        **(_of_whole_model(resolved) if request.method == "dreambooth" else _of_network()),
        **request.advanced,
    }
    return {name: value for name, value in values.items() if value is not None}


def _of_whole_model(resolved: ResolvedRequest) -> dict[str, Any]:
    return {
        "save_model_as": "diffusers",
        "use_safetensors": True,
        "stop_text_encoder_training": None if resolved.request.train_text_encoder else -1,
    }


def _of_network() -> dict[str, Any]:
    """Only the U-Net's attention, at strength 1, as in Diffusers' attention processors."""
    return {
        "network_module": "networks.lora",
        "network_dim": NETWORK_DIM,
        "network_alpha": float(NETWORK_DIM),
        "network_args": ["attn_only=true"],
        "network_train_unet_only": True,
        "save_model_as": "safetensors",
    }


def _schedule(resolved: ResolvedRequest) -> dict[str, Any]:
    """With what the schedule reads; the trainer refuses the rest."""
    request, name = resolved.request, resolved.lr_scheduler
    return {
        "lr_scheduler": name,
        "lr_warmup_steps": request.lr_warmup_steps if name != "constant" else None,
        "lr_scheduler_num_cycles": request.lr_num_cycles if name == "cosine_with_restarts" else None,
        "lr_scheduler_power": request.lr_power if name == "polynomial" else None,
    }


def _length(resolved: ResolvedRequest, folder: JobFolder) -> dict[str, Any]:
    """Steps win over epochs; then when to draw, and when to keep what a broken-off training goes on from: the last of these alone.

    A training that is short, or is asked to stop, needs none of that.
    """
    request = resolved.request
    draws = request.sample_count > 0
    prompts = {"sample_prompts": str(folder.prompts_file)} if draws else {}
    if request.max_train_steps is None:
        every = min(request.validation_epochs or request.num_train_epochs, request.num_train_epochs)
        keeps = {"save_every_n_epochs": every, "save_last_n_epochs": 1, "save_state": True} if every < request.num_train_epochs else {}
        return {"max_train_epochs": request.num_train_epochs, **keeps, **prompts, "sample_every_n_epochs": every if draws else None}
    steps = request.max_train_steps
    shown = steps
    if request.validation_epochs:
        shown = min(request.validation_epochs * _steps_per_epoch(resolved, folder), steps)
    keeps = {}
    if steps > STATE_EVERY:
        keeps = {"save_every_n_steps": STATE_EVERY, "save_last_n_steps": STATE_EVERY - 1, "save_state": True}
    return {"max_train_steps": steps, **keeps, **prompts, "sample_every_n_steps": shown if draws else None}


def _steps_per_epoch(resolved: ResolvedRequest, folder: JobFolder) -> int:
    """Optimizer steps in which each instance picture is seen once."""
    count = max(1, folder.count_pictures(folder.instance_pictures))
    for size in (resolved.request.train_batch_size, resolved.processes, resolved.request.gradient_accumulation_steps):
        count = -(-count // size)
    return count


def _dataset(resolved: ResolvedRequest, folder: JobFolder) -> dict[str, Any]:
    request = resolved.request
    subset = {
        "image_dir": str(folder.instance_pictures),
        "class_tokens": request.instance_prompt,
        "caption_extension": ".txt",
        "random_crop": not request.center_crop,
    }
    subsets = [subset]
    if resolved.with_prior_preservation:
        folder.class_pictures.mkdir(parents=True, exist_ok=True)
        wanted = {"num_class_images": request.num_class_images} if request.num_class_images else {}
        subsets.append({
            **subset, "image_dir": str(folder.class_pictures), "class_tokens": request.class_prompt, "is_reg": True,
            "class_prompt": request.class_prompt, **wanted,
        })  # fmt: skip
    return {"datasets": [{"resolution": request.resolution, "batch_size": request.train_batch_size, "subsets": subsets}]}


def _prompts(resolved: ResolvedRequest) -> list[dict[str, Any]]:
    """What is drawn with the trained model: one prompt, with a seed for each picture."""
    request = resolved.request
    shared = {
        "prompt": request.sample_prompt or request.instance_prompt,
        "negative_prompt": request.sample_negative_prompt,
        "width": request.resolution,
        "height": request.resolution,
        "sample_steps": request.sample_steps,
        "scale": request.sample_guidance_scale,
    }
    return [{**shared, "seed": (request.seed + number) % (MOST_SEED + 1)} for number in range(request.sample_count)]


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, "\n".join(_toml(content)) + "\n")


def _toml(content: Mapping[str, Any], place: str = "") -> list[str]:
    """Lines of TOML; names are ours, texts are quoted. Tables and lists of tables come after the plain values."""
    lines, tables = [], []
    for name, value in content.items():
        if isinstance(value, Mapping):
            tables += ["", f"[{place}{name}]", *_toml(value, f"{place}{name}.")]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for entry in value:
                tables += ["", f"[[{place}{name}]]", *_toml(entry, f"{place}{name}.")]
        else:
            lines.append(f"{name} = {toml_value(value)}")
    return lines + tables
