"""Cached text encoder outputs: which renderings of each caption there are, where they lie, and reading them."""
from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from library.data.cache import CacheReport, Distinctions
from library.data.captions import is_dropped, process_caption
from library.data.records import ImageRecord, Place, PreparedDataset
from library.data.text_cache_file import KIND, Arrays, entry_path, fingerprint_of, key_of, read_entry
from library.data.text_layout import TextLayout
from library.errors import UserError
from library.seeding import python_random

if TYPE_CHECKING:
    from library.config.datasets import CaptionSettings
    from library.types import Conditioning

EMPTY: Place = (-1, -1)  # stands for the empty text, which dropped captions become
EMPTY_STEM = "_empty_caption"
VARYING = ("shuffle_caption", "enable_wildcard", "caption_tag_dropout_rate")  # each use of a caption is rendered anew


@dataclass(frozen=True)
class TextCacheSettings:
    """How encoded text is cached. `rank` of `world_size` processes fills its share of a cache on disk, and all of one in memory."""

    on_disk: bool
    batch_size: int  # captions encoded at once
    skip_cache_check: bool  # take the files that exist for what they claim to be
    layout: TextLayout
    variants: int = 1  # renderings of a caption that would be another at each use
    source: Mapping[str, Any] = field(default_factory=dict)  # what the outputs depend on besides the text
    rank: int = 0
    world_size: int = 1


class TextCache:
    """Encoded captions by image and text, in memory or in files beside the images."""

    def __init__(self, prepared: Sequence[PreparedDataset], settings: TextCacheSettings):
        self.settings = settings
        self.report = CacheReport("text encoder outputs", "captions")
        self.shapes: dict[str, tuple[int, ...]] = {}  # of the arrays by key, where files are trusted unchecked
        self._prepared = prepared
        self._undropped = [[_undropped(subset.caption) for subset in dataset.settings.subsets] for dataset in prepared]
        self._memory: dict[str, Arrays] = {}  # by text; of a cache on disk, class prompts alone
        self._distinctions = {} if self.in_memory else _distinctions(prepared, settings)
        self._empty_path = _empty_path(prepared, settings.layout.suffix)  # None: captions are not dropped

    def __getstate__(self) -> dict[str, Any]:
        """A loader's worker gets no copy of what is in memory."""
        return {**self.__dict__, "_memory": {}}

    @property
    def in_memory(self) -> bool:
        return not self.settings.on_disk

    def places(self) -> Iterator[Place]:
        """All images, and EMPTY if captions are dropped."""
        for number, dataset in enumerate(self._prepared):
            yield from ((number, index) for index in range(len(dataset.records)))
        if self._empty_path is not None:
            yield EMPTY

    def class_prompts(self) -> list[str]:
        """The prompts that stand for classes: always held in memory, for there are few."""
        subsets = (subset for dataset in self._prepared for subset in dataset.settings.subsets)
        return list(dict.fromkeys(subset.class_prompt for subset in subsets if subset.class_prompt and not subset.is_reg))

    def share_of_this_process(self) -> list[Place]:
        """The places whose captions this process must encode where they are missing."""
        if self.in_memory:
            return list(self.places())
        by_path = {self.path_of(place): place for place in self.places()}  # the same image may be in two datasets
        return list(by_path.values())[self.settings.rank :: self.settings.world_size]

    def draw(self, place: Place, epoch: int, rng: random.Random) -> str:
        """The caption of one use of an image: empty if the draw says so, else one of its renderings."""
        record = self._record(place)
        if is_dropped(self._prepared[place[0]].settings.subsets[record.subset].caption, rng, epoch):
            return ""
        return self._rendering(place, rng.randrange(self._rendering_count(place)))

    def captions(self, place: Place) -> list[str]:
        """The different renderings of an image's caption."""
        if place == EMPTY:
            return [""]
        return list(dict.fromkeys(self._rendering(place, number) for number in range(self._rendering_count(place))))

    def caption(self, place: Place) -> str:
        """An image's caption as it is stored."""
        return "" if place == EMPTY else self._record(place).caption

    def _record(self, place: Place) -> ImageRecord:
        return self._prepared[place[0]].records[place[1]]

    def _rendering_count(self, place: Place) -> int:
        settings = self._undropped[place[0]][self._record(place).subset]
        return self.settings.variants if varying_keys(settings) else 1

    def _rendering(self, place: Place, number: int) -> str:
        """Depends on the image's name and the number alone, so that runs with different seeds share a cache."""
        record = self._record(place)
        rng = python_random("caption variant", Path(record.path).name, number)
        return process_caption(record.caption, self._undropped[place[0]][record.subset], rng, epoch=1, step=1, max_train_steps=1)

    def path_of(self, place: Place) -> Path:
        if place == EMPTY and self._empty_path is not None:
            return self._empty_path
        return entry_path(Path(self._record(place).path), self.settings.layout.suffix, self._distinctions.get(place, ""))

    def why_missing(self, place: Place) -> str | None:
        """Why a place has to be encoded; None if its entry can be used."""
        if self.in_memory:
            return "into memory"
        path = self.path_of(place)
        if self.settings.skip_cache_check:
            return None if path.exists() else "not made yet"
        captions = self.captions(place)
        keys = [key_of(key, number) for key in self.settings.layout.keys for number in range(len(captions))]
        return KIND.why_unusable(path, fingerprint_of(captions, self.settings.source), keys)

    def keep(self, caption: str, arrays: Arrays) -> None:
        """Hold an encoded caption in memory."""
        self._memory[caption] = arrays

    def of_class_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """What `fill_text_cache` has made of them."""
        return self.joined([self._memory[prompt] for prompt in prompts])

    def joined(self, texts: Sequence[Arrays]) -> Conditioning:
        """Encoded texts as a batch."""
        import torch

        layout = self.settings.layout
        return layout.join({key: torch.from_numpy(np.stack([text[key] for text in texts])) for key in layout.keys})

    def read(self, place: Place, caption: str) -> Arrays:
        """The encoded text of one use of an image, whose caption `draw` has given."""
        if self.in_memory:
            return self._memory[caption]
        captions = self.captions(place)
        if caption not in captions:  # it is dropped
            place, captions = EMPTY, [""]
        path = self.path_of(place)
        fingerprint = None if self.settings.skip_cache_check else fingerprint_of(captions, self.settings.source)
        arrays = read_entry(path, captions.index(caption), self.settings.layout.keys, fingerprint)
        for key, shape in self.shapes.items():
            if arrays[key].shape != shape:
                wanted, found = (" x ".join(map(str, sides)) for sides in (shape, arrays[key].shape))
                remedy = "leave out skip_cache_check, and it is made again"
                raise UserError(f"text encoder cache {path}: {key} is {found}, this model needs {wanted}; {remedy}")
        return arrays


def varying_keys(settings: CaptionSettings) -> list[str]:
    """The settings in force that render a caption anew at each use."""
    return [name for name in VARYING if getattr(settings, name)]


def check_captions_cacheable(prepared: Sequence[PreparedDataset], variants: int) -> None:
    """Raise UserError for each subset whose captions a cache of so many variants cannot stand for."""
    mistakes = []
    options = "cache_text_encoder_outputs and cache_text_encoder_outputs_to_disk"
    for subset in (subset for dataset in prepared for subset in dataset.settings.subsets):
        if subset.caption.token_warmup_step > 0:
            remedy = f"drop token_warmup_step, or {options}"
            mistakes.append(f"{subset.where}: token_warmup_step depends on the step and cannot be cached; {remedy}")
        varying = " and ".join(varying_keys(subset.caption))
        if varying and variants == 1:
            remedy = f"give --caption_variants 10 (that many renderings are encoded), or drop {varying}, or {options}"
            mistakes.append(f"{subset.where}: {varying} would render the caption anew at each use, but one is cached; {remedy}")
    if mistakes:
        raise UserError(*mistakes)


def _drops(settings: CaptionSettings) -> bool:
    return settings.caption_dropout_rate > 0 or settings.caption_dropout_every_n_epochs > 0


def _empty_path(prepared: Sequence[PreparedDataset], suffix: str) -> Path | None:
    """Where the empty text lies: beside the first image whose caption may be dropped."""
    for dataset in prepared:
        dropping = {index for index, subset in enumerate(dataset.settings.subsets) if _drops(subset.caption)}
        found = next((record for record in dataset.records if record.subset in dropping), None) if dropping else None
        if found is not None:
            return entry_path(Path(found.path).with_name(EMPTY_STEM), suffix)
    return None


def _undropped(settings: CaptionSettings) -> CaptionSettings:
    """Whether a caption is dropped is decided at each use."""
    return replace(settings, caption_dropout_rate=0.0, caption_dropout_every_n_epochs=0)


def _distinctions(prepared: Sequence[PreparedDataset], settings: TextCacheSettings) -> dict[Place, str]:
    """What to add to the names of entries: one image with two captions, say in two datasets, would share a file."""
    distinctions = Distinctions()
    for number, dataset in enumerate(prepared):
        rendered_by = [repr(_undropped(subset.caption)) for subset in dataset.settings.subsets]
        for index, record in enumerate(dataset.records):
            image = Path(record.path)
            claim = f"{image.name} {record.caption} {rendered_by[record.subset]}"
            distinctions.claim((number, index), entry_path(image, settings.layout.suffix), claim)
    return distinctions.by_place
