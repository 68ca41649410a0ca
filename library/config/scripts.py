"""The scripts that take options of a training: what tells one from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Script:
    """A script. Which options it takes stands with each option."""

    name: str  # of the file
    # What is trained: a network beside the model, the model, words; or nothing: caches for a training are filled.
    method: Literal["adapter", "full", "embedding", "caching"]
    tracker: str  # TensorBoard's sub-directory
    family: str | None = None  # the only family of models that it takes
    per_layer: bool = False  # of the words that it trains: a vector for each cross-attention layer
    general: str | None = None  # the script that does the same for every family, where this one takes one only


# For `scripts` of an option: those that train in the same way.
NETWORK = ("train_network.py", "sdxl_train_network.py")
FULL = ("train_db.py", "fine_tune.py", "sdxl_train.py")
TRAINING_TEXT_ON_DEMAND = ("fine_tune.py", "sdxl_train.py")  # train_db.py trains the text encoder unless told otherwise
EMBEDDING = ("train_textual_inversion.py", "train_textual_inversion_XTI.py", "sdxl_train_textual_inversion.py")
CACHING = ("tools/cache_latents.py", "tools/cache_text_encoder_outputs.py")  # these take all options, so as to share files

TRAIN_DB = Script("train_db.py", "full", "dreambooth")
FINE_TUNE = Script("fine_tune.py", "full", "finetuning")
TRAIN_NETWORK = Script("train_network.py", "adapter", "network_train")
TRAIN_TEXTUAL_INVERSION = Script("train_textual_inversion.py", "embedding", "textual_inversion")
TRAIN_TEXTUAL_INVERSION_XTI = Script("train_textual_inversion_XTI.py", "embedding", "textual_inversion", per_layer=True)
CACHE_LATENTS, CACHE_TEXT_ENCODER_OUTPUTS = (Script(name, "caching", "caching") for name in CACHING)
SDXL_TRAIN = Script("sdxl_train.py", "full", "finetuning", family="sdxl", general="fine_tune.py")
SDXL_TRAIN_NETWORK = Script("sdxl_train_network.py", "adapter", "network_train", family="sdxl", general="train_network.py")
SDXL_TRAIN_TEXTUAL_INVERSION = Script(
    "sdxl_train_textual_inversion.py", "embedding", "textual_inversion", family="sdxl", general="train_textual_inversion.py"
)

_ALL = (
    TRAIN_DB, FINE_TUNE, TRAIN_NETWORK, TRAIN_TEXTUAL_INVERSION, TRAIN_TEXTUAL_INVERSION_XTI, SDXL_TRAIN, SDXL_TRAIN_NETWORK,
    SDXL_TRAIN_TEXTUAL_INVERSION, CACHE_LATENTS, CACHE_TEXT_ENCODER_OUTPUTS,
)  # fmt: skip
SCRIPTS: dict[str, Script] = {script.name: script for script in _ALL}
