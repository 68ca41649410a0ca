"""Runs the tools of finetune/ in this process, over small pictures."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from finetune import (
    clean_captions_and_tags,
    make_captions,
    make_captions_by_git,
    merge_captions_to_metadata,
    merge_dd_tags_to_metadata,
    prepare_buckets_latents,
    tag_images_by_wd14_tagger,
)
from library.config.tool import read_tool_options

TOOLS: dict[str, tuple[type, Callable[[Any], None]]] = {
    "make_captions.py": (make_captions.MakeCaptionsOptions, make_captions.make_captions),
    "make_captions_by_git.py": (make_captions_by_git.MakeCaptionsByGitOptions, make_captions_by_git.make_captions_by_git),
    "tag_images_by_wd14_tagger.py": (tag_images_by_wd14_tagger.TagImagesOptions, tag_images_by_wd14_tagger.tag_images),
    "merge_captions_to_metadata.py": (merge_captions_to_metadata.MergeCaptionsOptions, merge_captions_to_metadata.merge_captions),
    "merge_dd_tags_to_metadata.py": (merge_dd_tags_to_metadata.MergeTagsOptions, merge_dd_tags_to_metadata.merge_tags),
    "clean_captions_and_tags.py": (clean_captions_and_tags.CleanOptions, clean_captions_and_tags.clean),
    "prepare_buckets_latents.py": (
        prepare_buckets_latents.PrepareBucketsOptions,
        prepare_buckets_latents.prepare_buckets_latents,
    ),
}


def run(script: str, *flags: str | Path) -> None:
    """What `python finetune/<script> <flags>` does; mistakes are raised."""
    options, work = TOOLS[script]
    work(read_tool_options(options, [str(flag) for flag in flags]))


def make_images(folder: Path, *names: str, size: tuple[int, int] = (48, 40), **texts: str) -> Path:
    """Pictures, each of another colour; `caption="..."` or `txt="..."` also writes such a file beside each."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours = np.random.default_rng(number).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
        Image.fromarray(colours.repeat(8, 0).repeat(8, 1)).save(path)
        for extension, text in texts.items():
            path.with_suffix(f".{extension}").write_text(text.format(path.stem), encoding="utf-8")
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder by their path, those of the hub's own bookkeeping aside."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
