"""The file of sample prompts (.txt, .toml, .json) and the switches behind a prompt: `a frog --w 512 --d 1 --n blurry`."""
from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from library.config.spelling import did_you_mean
from library.config.text_files import read_json, read_text, read_toml
from library.errors import UserError
from library.sampling.schedulers import check_sampler

logger = logging.getLogger(__name__)
FILE_KIND = "file of sample prompts"
MOST_STEPS = 1000
SIDE_STEP, SMALLEST_SIDE = 8, 64  # pixels
SWITCHES = {
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "sample_steps",
    "l": "scale",
    "g": "guidance_scale",
    "n": "negative_prompt",
    "ss": "sample_sampler",
    "cn": "controlnet_image",
    "ctr": "cfg_trunc_ratio",
    "rcfg": "renorm_cfg",
    "fs": "flow_shift",
}
OTHER_MODELS = {"controlnet_image", "guidance_scale", "cfg_trunc_ratio", "renorm_cfg", "flow_shift"}
WHOLE_NUMBERS = ("width", "height", "seed", "sample_steps")
NUMBERS = ("scale", "guidance_scale", "cfg_trunc_ratio", "renorm_cfg", "flow_shift")
# A switch begins with two dashes behind a space; what merely looks like one inside a prompt is left in it.
SWITCH_START = re.compile(r"(?:^|\s)--(?=[^\s-])")


@dataclass(frozen=True)
class SamplePrompt:
    """One sample picture: what to draw and how. `where` is its place in the file, for messages."""

    prompt: str = ""
    negative_prompt: str = ""
    width: int = 512  # pixels, a multiple of 8
    height: int = 512
    seed: int | None = None
    sample_steps: int = 30
    scale: float = 7.5  # of classifier-free guidance; none at 1 and below
    sample_sampler: str = "ddim"
    controlnet_image: str | None = None
    guidance_scale: float | None = None  # this and what follows: read for other models' sake, see OTHER_MODELS
    cfg_trunc_ratio: float | None = None
    renorm_cfg: float | None = None
    flow_shift: float | None = None
    where: str = ""


KEYS = tuple(field.name for field in fields(SamplePrompt) if field.name != "where")


def read_prompts(path: Path, sampler: str = "ddim") -> list[SamplePrompt]:
    """The prompts of a file; `sampler` is for those that name none. UserError with every mistake in it."""
    entries = _entries(path)
    if not entries:
        raise UserError(f"{path}: there is no prompt in this file")
    prompts: list[SamplePrompt] = []
    mistakes: list[str] = []
    for where, entry in entries:
        try:
            values = parse_line(entry, where) if isinstance(entry, str) else _checked_keys(entry, where)
            prompts.append(_prompt({"sample_sampler": sampler} | values, where))
        except UserError as error:
            mistakes += error.messages
    if mistakes:
        raise UserError(*mistakes)
    return prompts


def _entries(path: Path) -> list[tuple[str, str | Mapping[str, Any]]]:
    """Each prompt as it stands in the file, a line or a table, with its place."""
    suffix = path.suffix.lower()
    if suffix == ".txt":
        lines = [(number, line.strip()) for number, line in enumerate(read_text(path, FILE_KIND).splitlines(), 1)]
        return [(f"{path}, line {number}", line) for number, line in lines if line and not line.startswith("#")]
    if suffix == ".toml":
        return _toml_entries(path, read_toml(path, FILE_KIND))
    if suffix == ".json":
        content = read_json(path, FILE_KIND)
        if not isinstance(content, list) or not all(isinstance(entry, str | dict) for entry in content):
            raise UserError(f"{path}: expected a list of texts or objects")
        return [(f"{path}, entry {number}", entry) for number, entry in enumerate(content, 1)]
    if not path.is_file():
        read_text(path, FILE_KIND)  # says that it is missing
    raise UserError(f"{path}: a {FILE_KIND} ends in .txt, .toml or .json")


def _toml_entries(path: Path, content: Mapping[str, Any]) -> list[tuple[str, str | Mapping[str, Any]]]:
    """[prompt] holds defaults, each [[prompt.subset]] is a prompt; without any, [prompt] is the only one."""
    for key in content:
        if key != "prompt":
            raise UserError(f"{path}: unknown key {key}: prompts stand in [[prompt.subset]], what they share in [prompt]")
    table = content.get("prompt", {})
    if not isinstance(table, dict):
        raise UserError(f"{path}: prompt must be a table, [prompt]")
    shared = {key: value for key, value in table.items() if key != "subset"}
    subsets = table.get("subset", [{}] if shared else [])
    if not isinstance(subsets, list) or not all(isinstance(subset, dict) for subset in subsets):
        raise UserError(f"{path}: subset must be a list of tables, [[prompt.subset]]")
    return [(f"{path}, [[prompt.subset]] {number}", shared | subset) for number, subset in enumerate(subsets, 1)]


def parse_line(line: str, where: str) -> dict[str, Any]:
    """`a frog --w 512 --n blurry` -> the values by their keys, numbers read."""
    prompt, *switches = SWITCH_START.split(line)
    values: dict[str, Any] = {"prompt": prompt.strip()}
    for switch in switches:
        name, value = (*switch.split(maxsplit=1), "")[:2]
        key = SWITCHES.get(name.lower())
        if key is None:
            known = ", ".join(f"--{known}" for known in SWITCHES)
            raise UserError(f"{where}: unknown switch --{name} (there are {known}, each with a space and its value behind it)")
        values[key] = _read_value(key, value.strip(), f"{where}: --{name}")
    return values


def _read_value(key: str, text: str, where: str) -> Any:
    if key in WHOLE_NUMBERS or key in NUMBERS:
        try:
            return int(text) if key in WHOLE_NUMBERS else float(text)
        except ValueError:
            raise UserError(f"{where} needs a {'whole ' if key in WHOLE_NUMBERS else ''}number, not {text!r}") from None
    if not text and key != "negative_prompt":
        raise UserError(f"{where} needs a value")
    return text


def _checked_keys(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A table's values, each of a known key and of its kind. The prompt of a table is text, without switches."""
    for key, value in table.items():
        if key not in KEYS:
            raise UserError(f"{where}: unknown key {key}{did_you_mean(key, KEYS)}")
        kinds: tuple[type, ...] = (int,) if key in WHOLE_NUMBERS else (int, float) if key in NUMBERS else (str,)
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = {int: "a whole number", float: "a number", str: "text"}[kinds[-1]]
            raise UserError(f"{where}: {key} must be {wanted}, not {value!r}")
    return dict(table)


def _prompt(values: dict[str, Any], where: str) -> SamplePrompt:
    """Numbers brought into their range, names checked."""
    for side in {"width", "height"} & values.keys():
        values[side] = max(SMALLEST_SIDE, values[side] - values[side] % SIDE_STEP)
    if "sample_steps" in values:
        values["sample_steps"] = min(max(values["sample_steps"], 1), MOST_STEPS)
    values["sample_sampler"] = values["sample_sampler"].lower()
    check_sampler(values["sample_sampler"], where)
    image = values.get("controlnet_image")
    if image is not None and not Path(image).is_file():
        raise UserError(f"{where}: controlnet_image: {image}: no such file")
    for key in OTHER_MODELS & values.keys():
        logger.warning("%s: %s changes nothing: it is for models that are not trained here", where, key)
    return SamplePrompt(**values, where=where)
