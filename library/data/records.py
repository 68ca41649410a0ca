"""What is known of each image before any pixel is decoded, and which images make up an epoch."""
from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from library.data.regularisation import Ring, balanced_rings, partner_rings

if TYPE_CHECKING:
    from library.config.datasets import DatasetSettings
    from library.data.class_images import ClassImages

Size = tuple[int, int]  # (width, height), as in all of library.data; arrays are [height, width, channels]
Place = tuple[int, int]  # number of the dataset, index of the record in it


@dataclass(slots=True)
class ImageRecord:
    """One image file. A hundred thousand of these are held at once: keep it small."""

    path: str
    size: Size  # of the upright image, EXIF orientation applied
    caption: str  # as stored: of the caption file, else the class tokens, else ""; not yet processed
    has_caption: bool  # a caption file was found
    subset: int  # index into settings.subsets
    is_reg: bool
    num_repeats: int  # training images: entries per epoch; regularisation images: relative weight, see PreparedDataset.entries
    bucket: Size  # what the model sees
    resized: Size  # the image is resized to this, which covers the bucket, then cropped to the bucket
    mask: str | None = None  # path of the image whose red channel says how much each pixel counts

    @property
    def is_latents(self) -> bool:
        """Whether there is no image: `path` is that of its cached latents, which stand in for it."""
        return self.path.endswith(".npz")


@dataclass
class PreparedDataset:
    """A [[datasets]] table with its images. `skipped` are bad files left out under on_bad_image=skip."""

    settings: DatasetSettings
    records: list[ImageRecord]
    skipped: list[tuple[str, str]] = field(default_factory=list)  # (path, reason)
    notes: list[str] = field(default_factory=list)  # what a person should know about the folders, for the report
    validation: PreparedDataset | None = None  # the images that are held out, if any
    maker: Any = None  # an object of the user's that makes a whole batch of each entry
    class_images: list[ClassImages] = field(default_factory=list)  # to be drawn before training; they have records already
    train_entries: list[int] = field(init=False, repr=False)  # a record index for each training image x repeat
    regularisation_rings: list[Ring] = field(init=False, repr=False)
    is_paired: bool = field(init=False)  # beside each batch stands one of as many regularisation images; held-out images have none

    def __post_init__(self) -> None:
        self.train_entries = []
        weights: dict[Size, dict[int, int]] = defaultdict(dict)
        for index, record in enumerate(self.records):
            if record.is_reg:
                weights[record.bucket][index] = record.num_repeats
            else:
                self.train_entries.extend([index] * record.num_repeats)
        self.is_paired = self.settings.paired_prior and bool(weights)
        if self.is_paired:
            partners = Counter(self.records[index].bucket for index in self.train_entries)
            self.regularisation_rings = partner_rings(weights, partners)
        else:
            self.regularisation_rings = balanced_rings(weights, len(self.train_entries))

    @property
    def absent(self) -> dict[str, str]:
        """Images that nobody can look at before training, and why, by path."""
        absent = {record.path: "only its cached latents are there" for record in self.records if record.is_latents}
        for wanted in self.class_images:
            absent |= {str(wanted.path(number)): f'to be drawn from "{wanted.prompt}"' for number in wanted.missing}
        return absent

    @property
    def entries_per_batch(self) -> int:
        return 1 if self.maker is not None else self.settings.batch_size

    @property
    def samples_per_batch(self) -> int:
        """At most, class pictures included."""
        return self.settings.batch_size * (2 if self.is_paired else 1)

    @property
    def regularisation_entry_count(self) -> int:
        """How many entries of an epoch are regularisation images; the same in every epoch."""
        return sum(ring.slots for ring in self.regularisation_rings)

    def entries(self, epoch: int = 1) -> list[int]:
        """The record index of every entry of the 1-based epoch: training images first, then regularisation images.

        The number of entries and the bucket at each position are the same in every epoch, and so is the number of batches. Which
        regularisation image of that bucket stands at a position rotates from epoch to epoch, so that none stays unused.
        """
        rotating = [index for ring in self.regularisation_rings for index in ring.turn(epoch)]
        return self.train_entries + rotating
