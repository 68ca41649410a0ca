"""Cached latents: where each image's are, whether they still fit, and reading them. library.data.cache_fill makes them."""
from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.data.borrowed import Borrowed
from library.data.borrowed_file import Shape
from library.data.cache_file import Latents, Versions, entry_path, file_facts, fingerprint_of, read_entry, why_unusable
from library.data.entry_file import NO_FINGERPRINT, digest
from library.data.image_files import GONE, BadImage
from library.data.records import ImageRecord, Place, PreparedDataset
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings


class Distinctions:
    """What to add to the names of entries that others claim too; the first to claim a name keeps it plain."""

    def __init__(self) -> None:
        self.by_place: dict[Place, str] = {}
        self._first_claims: dict[int, int] = {}

    def claim(self, place: Place, path: Path, content: str) -> None:
        """The entry of an image wants this name. Who would write the same content may share it."""
        claim = digest(content)
        name = digest(str(path).casefold())  # some file systems do not tell a from A
        if self._first_claims.setdefault(name, claim) != claim:
            self.by_place[place] = f"_{claim:016x}"


@dataclass(frozen=True)
class CacheSettings:
    """How latents are cached. `rank` of `world_size` processes fills its share of a cache on disk, and all of one in memory."""

    on_disk: bool
    vae_batch_size: int
    skip_cache_check: bool  # take the files that exist for what they claim to be
    vae_fingerprint: str  # of the VAE's weights and of the precision in which it encodes
    suffix: str = "_sd"
    vae_scale: int = 8  # pixels of the image per pixel of the latents, along a side
    channels: int = 4  # of the latents
    rank: int = 0
    world_size: int = 1


@dataclass
class CacheReport:
    """What filling did on this process."""

    what: str = "latents"
    counted: str = "images"
    reused: int = 0
    encoded: dict[str, int] = field(default_factory=dict)  # why: how many images
    borrowed: int = 0
    checked: int = 0  # of those that might be borrowed

    def with_those_of(self, others: Sequence[CacheReport]) -> CacheReport:
        """The report of several processes, each of which has done its share."""
        every = (self, *others)
        encoded: Counter[str] = Counter()
        for report in every:
            encoded.update(report.encoded)
        counts = {name: sum(getattr(report, name) for report in every) for name in ("reused", "borrowed", "checked")}
        return CacheReport(self.what, self.counted, encoded=dict(encoded), **counts)

    def lines(self) -> list[str]:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.encoded.items())]
        total = f"{self.what}: {self.reused} {self.counted} from the cache, {sum(self.encoded.values())} encoded"
        lines = [total + (f" ({'; '.join(reasons)})" if reasons else "")]
        if self.borrowed:
            lines.append(
                f"latents: {self.borrowed} images from another tool's cache, {self.checked} checked against the VAE; "
                "it keeps one sample of each, so that every epoch sees the same one"
            )
        return lines


class LatentCache:
    """Latents by dataset and record, in memory or in files beside the images."""

    def __init__(self, prepared: Sequence[PreparedDataset], settings: CacheSettings):
        self.settings = settings
        self.report = CacheReport()
        self.borrowed = Borrowed(settings.suffix)
        self._prepared = prepared
        self._memory: dict[Place, Versions] = {}
        # Of the fingerprints as they were when the run began: an image that is touched later is of no concern to it.
        self._digests = [array("Q", bytes(8 * len(dataset.records))) for dataset in prepared]
        self._distinctions = {} if self.in_memory else _distinctions(prepared, settings.suffix)

    def __getstate__(self) -> dict[str, Any]:
        """A loader's worker gets no copy of the latents in memory."""
        return {**self.__dict__, "_memory": {}}

    @property
    def in_memory(self) -> bool:
        return not self.settings.on_disk

    def record(self, place: Place) -> ImageRecord:
        return self._prepared[place[0]].records[place[1]]

    def subset(self, place: Place) -> SubsetSettings:
        return self._prepared[place[0]].settings.subsets[self.record(place).subset]

    def is_masked(self, place: Place) -> bool:
        """Whether an image's pixels are weighted."""
        return self.subset(place).alpha_mask or self.record(place).mask is not None

    def places(self) -> Iterator[Place]:
        """All images."""
        return ((number, index) for number, dataset in enumerate(self._prepared) for index in range(len(dataset.records)))

    def share_of_this_process(self) -> list[Place]:
        """The images that this process must encode where they are missing."""
        if self.in_memory:
            return list(self.places())
        by_path = {self.path_of(place): place for place in self.places()}  # the same image may be in two datasets
        return list(by_path.values())[self.settings.rank :: self.settings.world_size]

    def path_of(self, place: Place) -> Path:
        record = self.record(place)
        if record.is_latents:
            return Path(record.path)
        return entry_path(Path(record.path), record.size, self.settings.suffix, self._distinctions.get(place, ""))

    def fingerprint(self, place: Place) -> str:
        """What an image's latents must be made from, as of now. From here on `read` accepts nothing else."""
        record = self.record(place)
        recipe = {**recipe_of(record, self.subset(place)), "vae": self.settings.vae_fingerprint}
        try:
            if record.mask:
                recipe["mask"] = file_facts(Path(record.mask))
            fingerprint = fingerprint_of(Path(record.path), recipe)
        except OSError as error:
            reason = GONE if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            whose = f"its mask {record.mask} " if error.filename == record.mask else ""
            raise BadImage(record.path, whose + reason) from error
        self._digests[place[0]][place[1]] = digest(fingerprint)
        return fingerprint

    def why_missing(self, place: Place) -> str | None:
        """Why an image has to be encoded; None if its entry can be used."""
        if self.record(place).is_latents:
            return None
        if self.in_memory:
            return "into memory"
        path = self.path_of(place)
        if self.settings.skip_cache_check:
            return None if path.exists() else "not made yet"
        reason = why_unusable(path, self.fingerprint(place), self.subset(place).flip_aug, self.is_masked(place))
        return None if reason is None else self._why_not_borrowed(place, reason)

    def _why_not_borrowed(self, place: Place, reason: str) -> str | None:
        """`reason`: what is wrong with our own entry. None if what another tool has made of the image can be used instead."""
        own_name = reason == NO_FINGERPRINT and place not in self._distinctions
        unfit = self.borrowed.borrow(place, self.record(place), self.subset(place), self._shape(place), own_name)
        return None if place in self.borrowed else unfit or reason

    def borrowed_by_path(self) -> dict[str, int]:
        """What is borrowed, for `share_borrowed`."""
        return {str(self.path_of(place)): self.borrowed.number(place) for place in self.borrowed}

    def share_borrowed(self, borrowed_by_path: Mapping[str, int]) -> None:
        """Borrow what was found to fit for the same image in another dataset, or by another process."""
        for place in self.places() if borrowed_by_path else ():
            number = borrowed_by_path.get(str(self.path_of(place)))
            if number is not None:
                self.borrowed.borrow_alike(place, self.record(place), number)

    def keep(self, place: Place, versions: Versions) -> None:
        """Hold an image's latents in memory."""
        self._memory[place] = versions

    def read(self, place: Place, flipped: bool) -> Latents:
        """An image's latents, or those of its mirror image."""
        stands_alone = self.record(place).is_latents
        if self.in_memory and not stands_alone:
            return self._memory[place][flipped]
        if place in self.borrowed:
            return self.borrowed.read(place, self.record(place), flipped, self.is_masked(place))
        path = self.path_of(place)
        digest_wanted = None if self.settings.skip_cache_check or stands_alone else self._digests[place[0]][place[1]]
        latents = read_entry(path, flipped, self.is_masked(place), digest_wanted)
        width, height = self.record(place).bucket
        if latents.mean.shape[1:] != self._shape(place)[1:] or (latents.mask is not None and latents.mask.shape != (height, width)):
            remedy = "leave out skip_cache_check, and it is made again"
            raise UserError(f"latent cache {path} is not for {width}x{height} pixels, as is needed now; {remedy}")
        return latents

    def _shape(self, place: Place) -> Shape:
        width, height = self.record(place).bucket
        return self.settings.channels, height // self.settings.vae_scale, width // self.settings.vae_scale


def recipe_of(record: ImageRecord, subset: SubsetSettings) -> dict[str, Any]:
    """How the pixels that are encoded come about from an image file."""
    return {
        "bucket": list(record.bucket),
        "resized": list(record.resized),
        "interpolation": subset.resize_interpolation,
        "alpha_mask": subset.alpha_mask,
    }


def check_cacheable(prepared: Sequence[PreparedDataset]) -> None:
    """Raise UserError for each subset with an augmentation that changes the pixels anew in each epoch."""
    mistakes = []
    for subset in (subset for dataset in prepared for subset in dataset.settings.subsets):
        for key in ("color_aug", "random_crop", "face_crop_aug_range"):
            if getattr(subset, key):
                mistakes.append(f"{subset.where}: {key} cannot be cached; drop {key}, or cache_latents and cache_latents_to_disk")
    if mistakes:
        raise UserError(*mistakes)


def _distinctions(prepared: Sequence[PreparedDataset], suffix: str) -> dict[Place, str]:
    """What to add to the names of entries: a.png and a.jpg of one size, or one image at two resolutions, would share a file."""
    distinctions = Distinctions()
    for number, dataset in enumerate(prepared):
        for index, record in enumerate(dataset.records):
            image, subset = Path(record.path), dataset.settings.subsets[record.subset]
            claim = f"{image.name} {subset.flip_aug} {recipe_of(record, subset)} {record.mask or ''}".rstrip()
            distinctions.claim((number, index), entry_path(image, record.size, suffix), claim)
    return distinctions.by_place
