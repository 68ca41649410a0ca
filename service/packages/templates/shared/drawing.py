"""Draws pictures with the weights of this package. Every input is checked here: servers differ in what they check themselves."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from PIL import Image
from weighted_prompts import embeddings

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "weights"
MOST_PIXELS = 786432  # of a picture: 1024 x 768
MOST_GIVEN_PIXELS = 50_000_000  # of a picture that is sent
SIDE_MULTIPLE = 8
SCHEDULERS = {
    "DDIM": "DDIMScheduler",
    "DPMSolverMultistep": "DPMSolverMultistepScheduler",
    "HeunDiscrete": "HeunDiscreteScheduler",
    "K_EULER_ANCESTRAL": "EulerAncestralDiscreteScheduler",
    "K_EULER": "EulerDiscreteScheduler",
    "KLMS": "LMSDiscreteScheduler",
    "PNDM": "PNDMScheduler",
    "UniPCMultistep": "UniPCMultistepScheduler",
}
KINDS = {
    "text": diffusers.AutoPipelineForText2Image,
    "image": diffusers.AutoPipelineForImage2Image,
    "inpainting": diffusers.AutoPipelineForInpainting,
}


class Painter:
    """Weights in memory. `kind`: text, image, inpainting, or control."""

    def __init__(self, kind: str):
        self._kind = kind
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.float16 if self._device == "cuda" else torch.float32
        folder, network = _weights()
        more = {"controlnet": _controlnet(dtype)} if kind == "control" else {}
        pipeline: Any = KINDS.get(kind, KINDS["text"])
        self._pipeline = pipeline.from_pretrained(folder, torch_dtype=dtype, **more).to(self._device)
        if network is not None:
            self._pipeline.load_lora_weights(network.parent, weight_name=network.name)
        self._schedule = self._pipeline.scheduler.config

    def paint(self, inputs: Mapping[str, Any]) -> list[Path]:
        """The pictures as PNG files. ValueError names the input that is wrong."""
        check(inputs)
        seed = inputs["seed"]
        if seed is None:
            seed = int.from_bytes(os.urandom(3), "big")
        print(f"seed: {seed}")
        scheduler = getattr(diffusers, SCHEDULERS[inputs["scheduler"]])
        more = {"skip_prk_steps": True} if inputs["scheduler"] == "PNDM" else {}  # else it fails at few steps
        self._pipeline.scheduler = scheduler.from_config(self._schedule, **more)
        texts = embeddings(self._pipeline, inputs["prompt"], inputs["negative_prompt"])
        shared = {
            **texts,
            **self._given(inputs),
            "num_inference_steps": inputs["num_inference_steps"],
            "guidance_scale": inputs["guidance_scale"],
        }
        folder = Path(tempfile.mkdtemp())
        paths = []
        for number in range(inputs["num_outputs"]):  # one after the other: memory does not grow, and each has a seed of its own
            generator = torch.Generator("cpu").manual_seed(seed + number)
            picture = self._pipeline(**shared, generator=generator).images[0]
            paths.append(folder / f"{number}.png")
            picture.save(paths[-1])
        return paths

    def _given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What this kind of drawing begins from."""
        if self._kind in ("image", "inpainting"):
            picture = read_picture("image", inputs["image"])
            strength = at_least_a_step(inputs["prompt_strength"], inputs["num_inference_steps"])
            given: dict[str, Any] = {"image": picture, "strength": strength}
            if self._kind == "inpainting":
                mask = read_picture("mask", inputs["mask"]).convert("L").resize(picture.size)
                given |= {"mask_image": mask, "width": picture.width, "height": picture.height}
            return given
        size = (inputs["width"], inputs["height"])
        if self._kind == "control":
            control = read_picture("control_image", inputs["control_image"]).resize(size)
            return {"image": control, "width": size[0], "height": size[1], "controlnet_conditioning_scale": inputs["control_scale"]}
        return {"width": size[0], "height": size[1]}


def at_least_a_step(strength: float, steps: int) -> float:
    """The share of the steps that is drawn. Less than one step would draw nothing: pipelines round down, and fail."""
    return strength if int(strength * steps) >= 1 else min(1.0, 1.5 / steps)


def _weights() -> tuple[str | Path, Path | None]:
    """The folder of the whole model, and the LoRA that goes on it, if this package is one."""
    if not WEIGHTS.is_dir():
        raise FileNotFoundError("this package has no folder weights: it was copied without them, or .dockerignore names it")
    network, base = WEIGHTS / "lora.safetensors", WEIGHTS / "base.json"
    if not network.is_file():
        return WEIGHTS, None
    named = json.loads(base.read_text(encoding="utf-8"))["model"]
    own = WEIGHTS / "base"
    return os.environ.get("BASE_MODEL_PATH") or (own if own.is_dir() else named), network


def _controlnet(dtype: torch.dtype) -> Any:
    return diffusers.ControlNetModel.from_pretrained(HERE / "controlnet", torch_dtype=dtype)


def read_picture(name: str, path: str | Path | None) -> Image.Image:
    """A picture that was sent, no larger than is drawn, its sides multiples of 8."""
    if path is None:
        raise ValueError(f"{name}: a picture is needed")
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as opened:
            if opened.width * opened.height > MOST_GIVEN_PIXELS:
                raise ValueError(f"{name}: the picture has more than {MOST_GIVEN_PIXELS} pixels")
            picture = opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError):
        raise ValueError(f"{name}: this is no picture; send a PNG, JPEG, WebP or BMP file") from None
    scale = min(1.0, (MOST_PIXELS / (picture.width * picture.height)) ** 0.5)
    sides = [max(SIDE_MULTIPLE, int(side * scale) // SIDE_MULTIPLE * SIDE_MULTIPLE) for side in picture.size]
    return picture.resize((sides[0], sides[1]))


def check(inputs: Mapping[str, Any]) -> None:
    """ValueError with everything that is wrong, as inputs.json beside this has it."""
    declared = json.loads((HERE / "inputs.json").read_text(encoding="utf-8"))["properties"]
    mistakes = [f"{name}: {mistake}" for name, field in declared.items() if (mistake := mistake_of(inputs.get(name), field))]
    if not mistakes and {"width", "height"} <= declared.keys() and inputs["width"] * inputs["height"] > MOST_PIXELS:
        mistakes.append(f"width: width x height is more than {MOST_PIXELS}; make the picture smaller")
    if mistakes:
        raise ValueError("; ".join(mistakes))


def mistake_of(value: Any, field: Mapping[str, Any]) -> str | None:
    """What is wrong with one input."""
    if value is None:
        return None if field.get("nullable") else "this is missing"
    kind = field["type"]
    if kind in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float))):
        return f"this is a {'whole number' if kind == 'integer' else 'number'}"
    if kind == "string" and field.get("format") != "uri" and not isinstance(value, str):
        return "this is a text"
    if "enum" in field and value not in field["enum"]:
        return f"this is one of {', '.join(map(str, field['enum']))}"
    if kind in ("integer", "number"):
        return _beyond(value, field)
    if "maxLength" in field and len(str(value)) > field["maxLength"]:
        return f"this has at most {field['maxLength']} characters"
    return None


def _beyond(value: float, field: Mapping[str, Any]) -> str | None:
    least, most = field.get("minimum"), field.get("maximum")
    if value != value or (least is not None and value < least) or (most is not None and value > most):
        return f"this is {least} to {most}"
    return None
