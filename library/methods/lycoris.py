"""What has to be known of LyCORIS, an optional package: what is mended so that it trains Stable Diffusion 1.x; what it cannot do."""
from __future__ import annotations

from pathlib import Path
from types import ModuleType

from library.config.options import NetworkOptions
from library.errors import UserError
from library.families.weight_files import read_shapes

DOUBLED_CLASS = "TimestepEmbedding"
DOUBLED_NAMES = {"time_embedding.linear_1", "time_embedding.linear_2"}


def mend_presets(kohya: ModuleType) -> None:
    """LyCORIS 4 picks the layers of the time embedding by class and again by name, then stops at the duplicates.

    Without the names the same layers are adapted, under the same keys.
    """
    network = kohya.LycorisNetworkKohya
    if DOUBLED_CLASS in network.UNET_TARGET_REPLACE_MODULE:
        network.UNET_TARGET_REPLACE_NAME = _without_doubled(network.UNET_TARGET_REPLACE_NAME)
    for preset in kohya.PRESET.values():
        if DOUBLED_CLASS in preset.get("unet_target_module", ()):
            preset["unet_target_name"] = _without_doubled(preset.get("unet_target_name", []))


def _without_doubled(names: list[str]) -> list[str]:
    return [name for name in names if name not in DOUBLED_NAMES]


def check_switch(options: NetworkOptions) -> None:
    """UserError for a network that changes the model at strength 0 too: the decomposed weights of DoRA."""
    if not (options.network_module or "").startswith("lycoris"):
        return
    reason = "with it LyCORIS cannot be switched off, which diff_output_preservation and prior_prediction need"
    for argument in options.network_args or ():
        key, _, value = argument.partition("=")
        if key.strip() == "dora_wd" and value.strip().lower() not in ("false", "0", ""):
            raise UserError(f"network_args dora_wd: {reason}; leave it out")
    file = options.network_weights
    if options.dim_from_weights and file and any(name.endswith(".dora_scale") for name in read_shapes(Path(file))):
        raise UserError(f"network_weights: {file} is a DoRA: {reason}; take another file")
