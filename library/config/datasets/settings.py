"""What training reads of a dataset: settings of datasets, of their subsets (one folder each) and of captions."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CaptionSettings:
    """How the captions of one subset are turned into prompts; names as in docs/dataset_config.md."""

    shuffle_caption: bool = False
    caption_separator: str = ","
    keep_tokens: int = 0
    keep_tokens_separator: str = ""
    secondary_separator: str | None = None
    enable_wildcard: bool = False
    caption_prefix: str | None = None
    caption_suffix: str | None = None
    caption_dropout_rate: float = 0.0
    caption_dropout_every_n_epochs: int = 0
    caption_tag_dropout_rate: float = 0.0
    token_warmup_min: int = 1
    token_warmup_step: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SubsetSettings:
    """One folder of pictures, or the pictures that one metadata file names."""

    image_dir: Path | None = None  # None: the metadata file holds whole paths
    metadata_file: Path | None = None  # None: captions are in files beside the pictures
    conditioning_data_dir: Path | None = None  # masks: white is learned, black is not
    num_repeats: int = 1
    is_reg: bool = False
    class_tokens: str | None = None  # the caption of pictures without a caption file
    num_class_images: int = 0  # so many regularisation pictures there are to be before training
    # Of regularisation pictures: what missing ones are drawn from; then class_tokens is the same. Of others: what the model is to keep.
    class_prompt: str | None = None
    caption_extension: str = ".caption"  # with its dot
    caption_extension_given: bool = True  # False: nobody chose it, it is the default
    caption: CaptionSettings = CaptionSettings()
    color_aug: bool = False
    flip_aug: bool = False
    random_crop: bool = False
    face_crop_aug_range: tuple[float, float] | None = None
    alpha_mask: bool = False
    resize_interpolation: str | None = None  # already the dataset's where the subset has none
    validation_split: float = 0.0  # part of the pictures that is held out; 1: all
    validation_seed: int | None = None
    custom_attributes: dict[str, Any] = field(default_factory=dict)
    cache_info: bool = False
    where: str = ""  # for messages: "data.toml [[datasets]] 1 [[datasets.subsets]] 2"

    @property
    def name(self) -> str:
        """Of the folder or of the metadata file, for reports."""
        source = self.metadata_file or self.image_dir
        return source.name if source else ""


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """Subsets that share batches: one resolution, one batch size."""

    resolution: tuple[int, int]  # (width, height) in pixels
    batch_size: int = 1  # per process
    enable_bucket: bool = False
    min_bucket_reso: int = 256
    max_bucket_reso: int = 1024
    bucket_reso_steps: int = 64
    bucket_no_upscale: bool = False
    network_multiplier: float = 1.0
    paired_prior: bool = False  # beside each batch stands one of as many regularisation pictures
    resize_interpolation: str | None = None
    subsets: tuple[SubsetSettings, ...] = ()
    where: str = ""
    notes: tuple[str, ...] = ()  # what the person should know, though it is no mistake
