"""Subsets that a metadata file describes: its keys resolved to files, its captions assembled."""
from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from library.data.folders import list_folder
from library.data.latents_only import LatentsOnly, latents_by_stem, read_facts
from library.data.listing import Listing
from library.data.metadata_files import Entry, assemble_caption, read_metadata
from library.data.wording import shortened
from library.errors import UserError

if TYPE_CHECKING:
    from library.config.datasets import SubsetSettings


def list_described(
    number: int, file: Path, subset: SubsetSettings, latent_suffix: str | None, mistakes: list[str], notes: list[str]
) -> Listing:
    """The pictures that the metadata file `file` names.

    `latent_suffix`: how the names of latent caches end that may stand in for a missing picture; None if no latents are cached.
    """
    metadata = read_metadata(file)
    for name, count in sorted(metadata.unused.items()):
        notes.append(f'{subset.where}: the field "{name}", which {count} entries of {file} have, is not used')
    relative = [entry.key for entry in metadata.entries if not Path(entry.key).is_absolute()]
    if relative and subset.image_dir is None:
        raise UserError(
            f'{subset.where} image_dir: this is missing, and {len(relative)} keys of {file} are no whole paths, such as '
            f'"{relative[0]}"; write image_dir = "their folder" (without a dataset file: --train_data_dir)'
        )
    search = _Search(subset, latent_suffix)
    listing = Listing(number)
    for entry in metadata.entries:
        _add(listing, entry, search, subset)
    cut = sum("\n" in (entry.caption or "").strip() for entry in metadata.entries)
    if cut and not subset.caption.enable_wildcard:
        notes.append(f"{subset.where}: of {cut} captions with several lines only the first is used (enable_wildcard uses all)")
    mistakes += shortened(search.ambiguous, "ambiguous keys")
    mistakes += shortened(search.named_twice(), "pictures that are named twice")
    if search.latents_only:
        notes.append(
            f"{subset.where}: {search.latents_only} pictures are not there, only their latents: these are used, "
            "and nothing can tell which VAE made them"
        )
    return listing


def _add(listing: Listing, entry: Entry, search: _Search, subset: SubsetSettings) -> None:
    found = search.find(entry)
    if found is None:
        return
    path, size = found.path, entry.size
    if found.problem:
        listing.bad[path] = found.problem
    if found.latents:
        size = found.latents.size
        listing.latent_buckets[path] = found.latents.bucket
    if size:
        listing.claimed_sizes[path] = size
    listing.paths.append(path)
    caption = assemble_caption(entry.caption, entry.tags, subset.caption.caption_separator, subset.caption.enable_wildcard)
    listing.captions.append(None if entry.caption is None and entry.tags is None else caption)
    search.keys[path].append(entry.where)


@dataclass
class _Found:
    """Where a key leads. `problem`: why it cannot be used."""

    path: str
    latents: LatentsOnly | None = None
    problem: str = ""


@dataclass
class _Names:
    """The file names of one folder, as keys may write them."""

    images: set[str]
    by_stem: dict[str, list[str]]  # of images
    latents: dict[str, list[str]]  # by the stem of their image


@dataclass
class _Search:
    """Finds the files of keys; remembers each folder that it looked into."""

    subset: SubsetSettings
    latent_suffix: str | None
    ambiguous: list[str] = field(default_factory=list)
    latents_only: int = 0
    keys: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by path, the places that name it
    _folders: dict[Path, _Names] = field(default_factory=dict)

    def find(self, entry: Entry) -> _Found | None:
        """None if the key is a mistake."""
        key = entry.key if os.sep == "\\" else entry.key.replace("\\", "/")  # files written on Windows
        path = (self.subset.image_dir or Path()) / key
        names = self._names(path.parent)
        if path.name in names.images:
            return _Found(str(path))
        stems = names.by_stem.get(path.name, [])
        if len(stems) > 1:
            self.ambiguous.append(f'{entry.where}: this may be {" or ".join(stems)} in "{path.parent}"; write the extension')
            return None
        if stems:
            return _Found(str(path.with_name(stems[0])))
        return self._stand_in(path, names)

    def _stand_in(self, path: Path, names: _Names) -> _Found:
        """Latents of a picture that is not there, or the news that nothing is."""
        files = names.latents.get(path.name) or names.latents.get(path.stem)
        if not files:
            similar = names.by_stem.get(path.stem, [])
            return _Found(str(path), problem="there is no such picture" + (f'; did you mean "{similar[0]}"?' if similar else ""))
        file = str(path.with_name(files[0]))
        if self.latent_suffix is None:
            return _Found(str(path), problem=f"there is no such picture, only its latents {file}; cache_latents uses them")
        if len(files) > 1:
            return _Found(str(path), problem=f"there is no such picture, but latents of several: {', '.join(files)}")
        self.latents_only += 1
        try:
            return _Found(file, read_facts(file, self.subset.flip_aug, self.subset.alpha_mask))
        except UserError as error:
            return _Found(file, problem=f"there is no such picture, and its latents {error}")

    def named_twice(self) -> list[str]:
        """Mistakes: pictures that several keys lead to."""
        return [
            f"{places[1]}: this is the same picture as {places[0]}; remove one of them"
            for places in self.keys.values()
            if len(places) > 1
        ]

    def _names(self, folder: Path) -> _Names:
        if folder not in self._folders:
            self._folders[folder] = _names_of(folder, self.latent_suffix)
        return self._folders[folder]


def _names_of(path: Path, latent_suffix: str | None) -> _Names:
    try:
        folder = list_folder(path, str(path))
    except UserError:  # its pictures will be told to be missing
        return _Names(set(), {}, {})
    by_stem = defaultdict(list)
    for image in folder.images:
        by_stem[Path(image).stem].append(image)
    return _Names(set(folder.images), dict(by_stem), latents_by_stem(folder.others.values(), latent_suffix))
