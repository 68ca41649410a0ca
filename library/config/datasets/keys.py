"""Every key of a dataset file: its type, the tables in which it may stand, and the flag that stands in where it is left out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from library.config.declare import Declaration, Option, kind_of, options_of
from library.config.options.data import INTERPOLATIONS, DataOptions

GENERAL, DATASET, SUBSET = "[general]", "[[datasets]]", "[[datasets.subsets]]"
_TWINS = {option.name: option for option in options_of(DataOptions)}

# What the subsets of a dataset are; all subsets of one dataset are of the same kind.
CAPTIONED = "subsets with caption files"
DESCRIBED = "subsets with metadata_file"
MASKED = "subsets with conditioning_data_dir"
_EVERY_KIND = (CAPTIONED, DESCRIBED, MASKED)
_FOLDERS = (CAPTIONED, MASKED)


@dataclass(frozen=True)
class DatasetKey:
    """One key. `option` has the key's name; type, default, choices and limits are those of its twin among the flags."""

    option: Option
    levels: tuple[str, ...]
    twin: str | None = None
    kinds: tuple[str, ...] = _EVERY_KIND  # of subsets that use it
    required: tuple[str, ...] = ()  # kinds of subsets that must have it

    @property
    def name(self) -> str:
        return self.option.name

    def may_stand_in(self, level: str, kind: str) -> bool:
        """Whether a table of this level may have the key. [general] is for subsets of all kinds."""
        return level in self.levels and (level == GENERAL or kind in self.kinds)


def _twin(name: str, *levels: str, flag: str | None = None, kinds: tuple[str, ...] = _EVERY_KIND, **changes: Any) -> DatasetKey:
    """A key that is declared as the flag of the same name (or as `flag`)."""
    twin = _TWINS[flag or name]
    declared = dataclasses.replace(twin.declared, **changes)
    return DatasetKey(dataclasses.replace(twin, name=name, declared=declared), levels, twin.name, kinds)


def _own(name: str, *levels: str, kind: Any, default: Any, help: str, **more: Any) -> DatasetKey:
    """A key that no flag corresponds to."""
    return DatasetKey(Option(name, kind_of(kind), default, Declaration(help)), levels, **more)


_UPPER = (DATASET, GENERAL)
_ALL = (SUBSET, DATASET, GENERAL)

_DATASET_KEYS = (
    _twin("batch_size", *_UPPER, flag="train_batch_size"),
    *(_twin(name, *_UPPER) for name in ("resolution", "enable_bucket", "min_bucket_reso", "max_bucket_reso")),
    *(_twin(name, *_UPPER) for name in ("bucket_reso_steps", "bucket_no_upscale")),
    _own("network_multiplier", *_UPPER, kind=float, default=1.0, help="Strength of the network for this dataset."),
)

_CAPTION_NAMES = (
    "shuffle_caption", "caption_separator", "keep_tokens", "keep_tokens_separator", "secondary_separator", "enable_wildcard",
    "caption_prefix", "caption_suffix", "caption_dropout_rate", "caption_dropout_every_n_epochs", "caption_tag_dropout_rate",
    "token_warmup_min", "token_warmup_step",
)  # fmt: skip

_SOURCE_KEYS = (
    _own("image_dir", SUBSET, kind=str, default=None, help="Folder of pictures, without its sub-folders.", required=_FOLDERS),
    _own("metadata_file", SUBSET, kind=str, default=None, help="File (.json or .jsonl) that names pictures and their captions.",
         kinds=(DESCRIBED,), required=(DESCRIBED,)),
    _own("conditioning_data_dir", SUBSET, kind=str, default=None, help="Folder of masks, named like the pictures.",
         kinds=(MASKED,), required=(MASKED,)),
    _own("is_reg", SUBSET, kind=bool, default=False, help="These are regularisation pictures.", kinds=(CAPTIONED,)),
    _twin("num_class_images", SUBSET, kinds=(CAPTIONED,)),
    _twin("class_prompt", SUBSET),
    _own("class_tokens", *_ALL, kind=str, default=None, help="Caption of pictures without a caption file.", kinds=(CAPTIONED,)),
    _twin("caption_extension", *_ALL, kinds=_FOLDERS),
    _twin("cache_info", *_ALL, kinds=_FOLDERS),
)  # fmt: skip

_SUBSET_KEYS = (
    _twin("num_repeats", *_ALL, flag="dataset_repeats"),
    *(_twin(name, *_ALL) for name in _CAPTION_NAMES),
    *(_twin(name, *_ALL) for name in ("color_aug", "flip_aug", "random_crop", "face_crop_aug_range")),
    _twin("alpha_mask", SUBSET, kinds=(CAPTIONED, DESCRIBED)),
    _twin("resize_interpolation", *_ALL, choices=(*INTERPOLATIONS, "box")),
    _twin("validation_split", *_ALL),
    _twin("validation_seed", *_ALL),
    _own("custom_attributes", *_ALL, kind=dict[str, Any], default=None, help="Values passed on with the pictures."),
)

KEYS: dict[str, DatasetKey] = {key.name: key for key in (*_DATASET_KEYS, *_SOURCE_KEYS, *_SUBSET_KEYS)}
RENAMED = {"in_json": "metadata_file"} | {key.twin: key.name for key in KEYS.values() if key.twin and key.twin != key.name}


def kind_of_subsets(tables: list[Any]) -> str:
    """The kind that the tables of one dataset's subsets claim to be of; a table of another kind will be found wrong."""
    written = {name for table in tables if isinstance(table, dict) for name in table}
    if "metadata_file" in written:
        return DESCRIBED
    return MASKED if "conditioning_data_dir" in written else CAPTIONED
