"""The ss_* fields that tell of the data: one set for runs with a dataset file, one for runs with folders given by flags."""
from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from library.checkpoint.dataset_facts import DatasetFacts, SubsetFacts

if TYPE_CHECKING:
    from library.config.datasets.settings import SubsetSettings
    from library.config.options import DataOptions


def dataset_file_metadata(datasets: Sequence[DatasetFacts]) -> dict[str, Any]:
    """Fields of a run with --dataset_config."""
    folders: dict[str, Any] = {}
    for settings, facts in (pair for dataset in datasets for pair in _subsets(dataset)):
        if not settings.is_reg:
            folders[_free_name(settings.name, folders)] = _folder(settings, facts)
    tags: dict[str, dict[str, int]] = {}
    for dataset in datasets:
        tags = {**_tag_frequency(dataset), **tags}  # a folder that two datasets use is counted once
    return {
        "ss_datasets": json.dumps([_dataset(dataset) for dataset in datasets]),
        "ss_tag_frequency": json.dumps(tags),
        "ss_dataset_dirs": json.dumps(folders),
    }


def single_dataset_metadata(dataset: DatasetFacts, options: DataOptions, total_batch_size: int) -> dict[str, Any]:
    """Fields of a run with --train_data_dir."""
    settings = dataset.settings
    subsets = list(_subsets(dataset))
    return {
        "ss_batch_size_per_device": settings.batch_size,
        "ss_total_batch_size": total_batch_size,
        "ss_resolution": tuple(settings.resolution),
        "ss_color_aug": options.color_aug,
        "ss_flip_aug": options.flip_aug,
        "ss_random_crop": options.random_crop,
        "ss_shuffle_caption": options.shuffle_caption,
        "ss_keep_tokens": options.keep_tokens,
        "ss_enable_bucket": settings.enable_bucket,
        "ss_bucket_no_upscale": settings.bucket_no_upscale,
        **{f"ss_{name}": value for name, value in _bucket_limits(dataset).items()},
        "ss_dataset_dirs": json.dumps({s.name: _folder(s, facts) for s, facts in subsets if not s.is_reg}),
        "ss_reg_dataset_dirs": json.dumps({s.name: _folder(s, facts) for s, facts in subsets if s.is_reg}),
        "ss_tag_frequency": json.dumps(_tag_frequency(dataset)),
        "ss_bucket_info": json.dumps(_bucket_info(dataset)),
    }


def _dataset(dataset: DatasetFacts) -> dict[str, Any]:
    settings = dataset.settings
    return {
        "is_dreambooth": not any(subset.metadata_file for subset in settings.subsets),
        "batch_size_per_device": settings.batch_size,
        "num_train_images": dataset.num_train_images,
        "num_reg_images": dataset.num_reg_images,
        "resolution": settings.resolution,
        "enable_bucket": settings.enable_bucket,
        **_bucket_limits(dataset),
        "tag_frequency": _tag_frequency(dataset),
        "bucket_info": _bucket_info(dataset),
        "resize_interpolation": settings.resize_interpolation,
        "subsets": [_subset(settings, facts) for settings, facts in _subsets(dataset)],
    }


def _subset(settings: SubsetSettings, facts: SubsetFacts) -> dict[str, Any]:
    caption = settings.caption
    return {
        "img_count": facts.image_count,
        "num_repeats": settings.num_repeats,
        "color_aug": settings.color_aug,
        "flip_aug": settings.flip_aug,
        "random_crop": settings.random_crop,
        "shuffle_caption": caption.shuffle_caption,
        "keep_tokens": caption.keep_tokens,
        "keep_tokens_separator": caption.keep_tokens_separator,
        "secondary_separator": caption.secondary_separator,
        "enable_wildcard": caption.enable_wildcard,
        "caption_prefix": caption.caption_prefix,
        "caption_suffix": caption.caption_suffix,
        "resize_interpolation": settings.resize_interpolation,
        **_source(settings),
    }


def _source(settings: SubsetSettings) -> dict[str, Any]:
    if settings.metadata_file:
        return {"metadata_file": settings.name}
    return {"image_dir": settings.name, "class_tokens": settings.class_tokens, "is_reg": settings.is_reg}


def _subsets(dataset: DatasetFacts) -> Iterator[tuple[SubsetSettings, SubsetFacts]]:
    return zip(dataset.settings.subsets, dataset.subsets, strict=True)


def _folder(settings: SubsetSettings, facts: SubsetFacts) -> dict[str, int]:
    return {"n_repeats": settings.num_repeats, "img_count": facts.image_count}


def _tag_frequency(dataset: DatasetFacts) -> dict[str, dict[str, int]]:
    """{folder: {tag: count}}; subsets whose folders have the same name are counted together."""
    frequency: dict[str, dict[str, int]] = {}
    for settings, facts in _subsets(dataset):
        counts = frequency.setdefault(settings.name, {})
        for tag, count in facts.tag_counts.items():
            counts[tag] = counts.get(tag, 0) + count
    return frequency


def _bucket_limits(dataset: DatasetFacts) -> dict[str, int | None]:
    settings = dataset.settings
    return {
        "min_bucket_reso": settings.min_bucket_reso if settings.enable_bucket else None,
        "max_bucket_reso": settings.max_bucket_reso if settings.enable_bucket else None,
    }


def _bucket_info(dataset: DatasetFacts) -> dict[str, Any] | None:
    if not dataset.settings.enable_bucket:
        return None
    buckets = {index: {"resolution": size, "count": count} for index, (size, count) in enumerate(dataset.bucket_counts.items())}
    return {"buckets": buckets, "mean_img_ar_error": dataset.mean_aspect_error}


def _free_name(name: str, taken: dict[str, Any]) -> str:
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name} ({count})"
    return free
