"""Which architecture a checkpoint has, told from the names and shapes of its tensors or from a folder's configurations."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from library.errors import UserError
from library.families.diffusers_folder import read_config
from library.families.weight_files import Shapes

TITLES = {
    "sd_v1": "Stable Diffusion 1.x",
    "sd_v2": "Stable Diffusion 2.x",
    "sd_inpainting": "a Stable Diffusion inpainting model (9 input channels)",
    "sdxl": "Stable Diffusion XL",
    "sdxl_refiner": "the Stable Diffusion XL refiner",
    "sd3": "Stable Diffusion 3",
    "flux": "FLUX",
}
PIPELINES = {
    "StableDiffusionPipeline": "sd_v1",
    "StableDiffusionInpaintPipeline": "sd_inpainting",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusionXLImg2ImgPipeline": "sdxl_refiner",
    "StableDiffusion3Pipeline": "sd3",
    "FluxPipeline": "flux",
}
# Files of weights that are no whole model: where a tensor's name contains one of these, and what the file is then.
NOT_MODELS = (
    ((".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1", ".lokr_w1", "lora_unet_", "lora_te"), "a LoRA or the like"),
    (("emb_params", "string_to_param", "clip_l", "clip_g"), "a textual inversion embedding"),
    (("control_model.", "controlnet_cond_embedding."), "a ControlNet"),
    (("decoder.up.", "encoder.down.", "decoder.up_blocks."), "a VAE alone: it can be given with the option vae"),
    (("down_blocks.0.", "time_embedding.linear_1."), "a UNet alone, in Diffusers layout: give the folder with model_index.json"),
    (("encoder.layers.0.",), "a text encoder alone"),
)
INPAINTING_CHANNELS = 9
SD2_TEXT_WIDTH = 1024


def architecture_of_file(path: Path, shapes: Shapes) -> str:
    """A key of TITLES. UserError that says what the file is if it is not a whole model."""

    def has(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in shapes)

    if has("model.diffusion_model.joint_blocks.", "joint_blocks."):
        return "sd3"
    if has("model.diffusion_model.double_blocks.", "double_blocks.", "transformer_blocks.0.norm1_context"):
        return "flux"
    if not has("model.diffusion_model.input_blocks.0.0.weight"):
        raise UserError(f"{path}: not a Stable Diffusion model but {_what_else(shapes)}")
    if has("conditioner.embedders.1."):
        return "sdxl"
    if has("conditioner.embedders.0.model."):
        return "sdxl_refiner"
    if shapes["model.diffusion_model.input_blocks.0.0.weight"][1] == INPAINTING_CHANNELS:
        return "sd_inpainting"
    if has("model.diffusion_model.label_emb."):
        return "sdxl"
    return "sd_v2" if has("cond_stage_model.model.") else "sd_v1"


def _what_else(shapes: Shapes) -> str:
    for marks, what in NOT_MODELS:
        if any(mark in name for name in shapes for mark in marks):
            return what
    some = ", ".join(sorted(shapes)[:3])
    return f"something unknown, with tensors named {some}" if some else "a file without tensors"


def architecture_of_folder(folder: Path, index: dict[str, Any]) -> str:
    """A key of TITLES, from model_index.json and the UNet's and the text encoder's configurations."""
    pipeline = str(index.get("_class_name"))
    if pipeline not in PIPELINES:
        raise UserError(f"{folder / 'model_index.json'}: {pipeline} is an architecture that is not known here")
    architecture = PIPELINES[pipeline]
    if architecture != "sd_v1":
        return architecture
    unet, text = (_config(folder / part / "config.json") for part in ("unet", "text_encoder"))
    if unet.get("in_channels", 4) == INPAINTING_CHANNELS:
        return "sd_inpainting"
    return "sd_v2" if unet.get("use_linear_projection") or text.get("hidden_size") == SD2_TEXT_WIDTH else "sd_v1"


def _config(path: Path) -> dict[str, Any]:
    """What is missing is told later, with everything else that the folder lacks."""
    return read_config(path) if path.is_file() else {}
