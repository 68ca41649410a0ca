"""What has to be mended in LyCORIS, an optional package, before it can train Stable Diffusion 1.x."""
from __future__ import annotations

from types import ModuleType

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
