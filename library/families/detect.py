"""From the model options to a family bound to its checkpoint, by headers and configurations alone: no weight is read."""
from __future__ import annotations

from typing import TYPE_CHECKING

from library.errors import UserError
from library.families import sd, sdxl
from library.families.architecture import TITLES, architecture_of_file, architecture_of_folder
from library.families.base import Family
from library.families.diffusers_folder import read_index
from library.families.locate import locate
from library.families.weight_files import read_shapes

if TYPE_CHECKING:
    from library.config.options.model import ModelOptions

# Architecture -> the module with its `from_folder` and `from_file`.
FAMILIES = {"sd_v1": sd, "sd_v2": sd, "sdxl": sdxl}


def identify(options: ModelOptions) -> Family:
    """The family of the base model. UserError if it is none of ours, not whole, or at odds with the options."""
    name = options.pretrained_model_name_or_path
    if not name:
        raise UserError("pretrained_model_name_or_path is missing: it names a .safetensors or .ckpt file, a folder or a hub id")
    path = locate(name, "pretrained_model_name_or_path")
    if path.is_dir():
        architecture = architecture_of_folder(path, read_index(path))
        _check_architecture(architecture, name, options)
        return FAMILIES[architecture].from_folder(path, architecture, options)
    shapes = read_shapes(path)
    architecture = architecture_of_file(path, shapes)
    _check_architecture(architecture, name, options)
    return FAMILIES[architecture].from_file(path, shapes, architecture, options)


def _check_architecture(architecture: str, name: str, options: ModelOptions) -> None:
    if architecture not in FAMILIES:
        wanted = "give a Stable Diffusion 1.x, 2.x or XL model that draws from text"
        raise UserError(f"{name}: this is {TITLES[architecture]}, which cannot be trained; {wanted}")
    if options.v2 and architecture != "sd_v2":
        raise UserError(f"{name}: v2 = true, but this is {TITLES[architecture]}: delete v2")
