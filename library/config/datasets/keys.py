"""Every key of a dataset file: its type, the tables in which it may stand, and the flag that stands in where it is left out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from library.config.declare import Declaration, Option, kind_of, options_of
from library.config.options.data import INTERPOLATIONS, DataOptions

GENERAL, DATASET, SUBSET = "[general]", "[[datasets]]", "[[datasets.subsets]]"
_TWINS = {option.name: option for option in options_of(DataOptions)}


@dataclass(frozen=True)
class DatasetKey:
    """One key. `option` has the key's name; type, default, choices and limits are those of its twin among the flags."""

    option: Option
    levels: tuple[str, ...]
    twin: str | None = None
    required: bool = False
    unbuilt: bool = False  # only its default is accepted yet

    @property
    def name(self) -> str:
        return self.option.name


def _twin(name: str, *levels: str, flag: str | None = None, **changes: Any) -> DatasetKey:
    """A key that is declared as the flag of the same name (or as `flag`)."""
    twin = _TWINS[flag or name]
    declared = dataclasses.replace(twin.declared, **changes)
    return DatasetKey(dataclasses.replace(twin, name=name, declared=declared), levels, twin.name)


def _own(name: str, *levels: str, kind: Any, default: Any, help: str, **more: Any) -> DatasetKey:
    """A key that no flag corresponds to."""
    flags = {name: more.pop(name) for name in ("required", "unbuilt") if name in more}
    return DatasetKey(Option(name, kind_of(kind), default, Declaration(help, **more)), levels, **flags)


_UPPER = (DATASET, GENERAL)
_ALL = (SUBSET, DATASET, GENERAL)

_DATASET_KEYS = (
    _twin("batch_size", *_UPPER, flag="train_batch_size"),
    *(_twin(name, *_UPPER) for name in ("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso")),
    *(_twin(name, *_UPPER) for name in ("bucket_reso_steps", "bucket_no_upscale")),
    _own("network_multiplier", *_UPPER, kind=float, default=1.0, help="Strength of the network for this dataset.", unbuilt=True),
    _own("validation_seed", *_UPPER, kind=int, default=None, help="Seed that picks the validation pictures.", unbuilt=True),
    _own(
        "validation_split", *_UPPER, kind=float, default=0.0, help="Part of the pictures held out.", unbuilt=True, least=0, most=1
    ),
)

_CAPTION_NAMES = (
    "shuffle_caption", "caption_separator", "keep_tokens", "keep_tokens_separator", "secondary_separator", "enable_wildcard",
    "caption_prefix", "caption_suffix", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
    "token_warmup_min", "token_warmup_step",
)  # fmt: skip

_SUBSET_KEYS = (
    _own("image_dir", SUBSET, kind=str, default=None, help="Folder of pictures; its sub-folders are not read.", required=True),
    _own("num_repeats", *_ALL, kind=int, default=1, help="How often each picture is used in an epoch."),
    _own("is_reg", SUBSET, kind=bool, default=False, help="These are regularisation pictures."),
    _own("class_tokens", *_ALL, kind=str, default=None, help="Caption of pictures that have no caption file."),
    _twin("caption_extension", *_ALL),
    *(_twin(name, *_ALL) for name in _CAPTION_NAMES),
    *(_twin(name, *_ALL) for name in ("color_aug", "flip_aug", "random_crop", "face_crop_aug_range")),
    _twin("alpha_mask", SUBSET),
    _twin("resize_interpolation", *_ALL, choices=(*INTERPOLATIONS, "box")),
    _own("custom_attributes", *_ALL, kind=dict[str, Any], default=None, help="Values passed on with the pictures."),
    _own(
        "cache_info", *_ALL, kind=bool, default=False, help="Keep captions and sizes in a file beside the pictures.", unbuilt=True
    ),
)

KEYS: dict[str, DatasetKey] = {key.name: key for key in (*_DATASET_KEYS, *_SUBSET_KEYS)}
UNBUILT_SUBSETS = {
    "metadata_file": "subsets that are described by a metadata file",
    "conditioning_data_dir": "subsets with conditioning pictures",
}
RENAMED = {key.twin: key.name for key in KEYS.values() if key.twin and key.twin != key.name}
