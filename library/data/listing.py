"""The pictures of one subset before their files are opened: what the folder or the metadata file says of them."""
from __future__ import annotations

from dataclasses import dataclass, field

from library.data.class_images import ClassImages
from library.data.folder_index import FolderIndex
from library.data.records import Size


@dataclass
class Listing:
    """The first three are parallel lists; the dictionaries are by path."""

    subset: int  # index into the dataset's subsets
    paths: list[str] = field(default_factory=list)
    captions: list[str | None] = field(default_factory=list)  # None: there is none
    masks: list[str] = field(default_factory=list)  # paths; empty if the subset has no masks
    claimed_sizes: dict[str, Size] = field(default_factory=dict)  # headers need not be read for these; checked with the pixels
    latent_buckets: dict[str, Size] = field(default_factory=dict)  # of latents without an image: the size that they are for
    bad: dict[str, str] = field(default_factory=dict)  # why a picture cannot be used, as far as it is known yet
    class_images: ClassImages | None = None  # those of `paths` that are to be drawn before training
    index: FolderIndex | None = None  # to be written once all sizes are known
    index_captions: list[str] = field(default_factory=list)  # what the index keeps of each path

    @property
    def future_sizes(self) -> dict[str, Size]:
        """Of pictures that are not there yet, by path."""
        wanted = self.class_images
        return {str(wanted.path(number)): wanted.size for number in wanted.missing} if wanted else {}
