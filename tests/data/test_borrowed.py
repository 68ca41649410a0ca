"""Latents that another tool cached: used if they fit the image, else encoded again with a reason."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from library.data.dataset import TrainingDataset
from library.data.loader import make_loader
from library.data.order import TrainingOrder
from tests.data.another_tool import NAMES, cache_of_another_tool, change, filled
from tests.data.tiny_datasets import SIZES, prepare, subset_of, write_image, write_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


# --- what is used ---


@pytest.mark.parametrize("named", NAMES)
@pytest.mark.parametrize("options", [{}, {"flip_aug": True}, {"flip_aug": True, "alpha_mask": True}], ids=str)
def test_what_fits_is_used_and_reported(tmp_path, named, options):
    folder = write_images(tmp_path / "images", alpha="alpha_mask" in options)
    prepared = prepare(subset_of(folder, **options))
    files = cache_of_another_tool(prepared, named)
    before = {file: file.read_bytes() for file in folder.glob("*.npz")}
    cache = filled(prepared)
    assert cache.report.lines() == [
        "latents: 0 images from the cache, 0 encoded",
        "latents: 6 images from another tool's cache, 3 checked against the VAE; "
        "it keeps one sample of each, so that every epoch sees the same one",
    ]
    assert {file: file.read_bytes() for file in folder.glob("*.npz")} == before
    for index, record in enumerate(prepared[0].records):
        with np.load(files[Path(record.path).name]) as entry:
            for flipped in (False, True) if "flip_aug" in options else (False,):
                latents = cache.read((0, index), flipped)
                np.testing.assert_array_equal(latents.mean, entry["latents_flipped" if flipped else "latents"])
                assert latents.std.shape == latents.mean.shape and not latents.std.any()
                assert (latents.mask is None) == ("alpha_mask" not in options)
                if latents.mask is not None:
                    mask = np.rint(entry["alpha_mask"] * 255)
                    np.testing.assert_array_equal(latents.mask, mask[:, ::-1] if flipped else mask)


def test_the_oldest_caches_hold_the_mirror_image_in_a_file_of_its_own(folder):
    prepared = prepare(subset_of(folder, flip_aug=True))
    for file in cache_of_another_tool(prepared, "older").values():
        with np.load(file) as entry:
            arrays = dict(entry)
        mirrored = arrays.pop("latents_flipped")
        np.savez(file, **arrays)
        np.savez(file.with_name(f"{file.stem}_flip.npz"), **{**arrays, "latents": mirrored})
    cache = filled(prepared)
    assert (cache.report.borrowed, cache.report.encoded) == (6, {})
    with np.load(folder / "2_flip.npz") as entry:
        np.testing.assert_array_equal(cache.read((0, 2), True).mean, entry["latents"])
    with np.load(folder / "2.npz") as entry:
        np.testing.assert_array_equal(cache.read((0, 2), False).mean, entry["latents"])


def test_workers_read_them(folder):
    prepared = prepare(subset_of(folder, flip_aug=True))
    cache_of_another_tool(prepared, "older")
    cache = filled(prepared)
    batches = []
    for workers in (0, 2):
        dataset = TrainingDataset(prepared, 5, 9, 1.0, cache)
        batches.append(list(make_loader(dataset, TrainingOrder(prepared, 5, 1, 0, 1).places(1, 9), workers)))
    for one, two in zip(*batches, strict=True):
        assert torch.equal(one.posterior.mean, two.posterior.mean)
        assert one.posterior.std.eq(0).all()


def test_our_own_entries_come_first(folder):
    prepared = prepare(subset_of(folder))
    filled(prepared)
    cache_of_another_tool(prepared, "older")
    cache = filled(prepared)
    assert (cache.report.reused, cache.report.borrowed) == (6, 0)
    assert cache.read((0, 0), False).std.any()


def test_our_entries_of_another_family_are_not_another_tools(folder):
    prepared = prepare(subset_of(folder))
    filled(prepared, suffix="_sdxl")
    assert filled(prepared).report.encoded == {"not made yet": 6}


def test_nothing_is_read_from_the_disk_for_latents_in_memory(folder):
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared)
    cache = filled(prepared, on_disk=False)
    assert (cache.report.borrowed, cache.report.encoded) == (0, {"into memory": 6})
    assert cache.read((0, 0), False).std.any()


def test_two_datasets_of_one_folder_and_size_share_them(folder):
    prepared = [*prepare(subset_of(folder)), *prepare(subset_of(folder))]
    cache_of_another_tool(prepared[:1], "train_db")
    cache = filled(prepared)
    assert cache.report.borrowed == 6
    np.testing.assert_array_equal(cache.read((0, 3), False).mean, cache.read((1, 3), False).mean)


def test_of_two_resolutions_each_uses_what_is_for_it(folder):
    small, large = prepare(subset_of(folder)), prepare(subset_of(folder), resolution=(192, 192))
    cache_of_another_tool(large, "older")
    cache = filled([*small, *large])
    same_bucket = sum(a.bucket == b.bucket for a, b in zip(small[0].records, large[0].records, strict=True))
    assert same_bucket == 0
    assert (cache.report.borrowed, cache.report.encoded) == (6, {"in another tool's cache, made for another resolution or bucket": 6})
    for dataset, prepared in enumerate((small, large)):
        for index, record in enumerate(prepared[0].records):
            latents = cache.read((dataset, index), False)
            assert latents.mean.shape == (4, record.bucket[1] // 8, record.bucket[0] // 8)
            assert latents.std.any() == (dataset == 0)


def test_processes_share_what_they_found(folder):
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared)
    caches = [filled(prepared, rank=rank, world_size=2) for rank in range(2)]
    everybodys = {**caches[0].borrowed_by_path(), **caches[1].borrowed_by_path()}
    for cache in caches:
        assert cache.report.borrowed == 3
        cache.share_borrowed(everybodys)
        for index in range(len(SIZES)):
            assert not cache.read((0, index), False).std.any()


# --- what is not ---


def older(folder: Path, file: Path) -> None:
    os.utime(file, ns=(0, 0))


def torn(folder: Path, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-30])


def flipped_bytes(folder: Path, file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 255
    file.write_bytes(content)


def turned(folder: Path, file: Path) -> None:
    with Image.open(folder / "3.png") as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.save(folder / "3.png", exif=exif)
    os.utime(folder / "3.png", ns=(1, 1))


def transparent(folder: Path, file: Path) -> None:
    write_image(folder / "3.png", (128, 128), 3, alpha=True)
    os.utime(folder / "3.png", ns=(1, 1))


def sixteen_bits(folder: Path, file: Path) -> None:
    Image.fromarray(np.full((128, 128), 40000, np.uint16)).save(folder / "3.png")
    os.utime(folder / "3.png", ns=(1, 1))


def changing(**arrays) -> Callable[[Path, Path], None]:
    return lambda folder, file: change(file, **arrays)


NO_NUMBER = np.full((4, 16, 16), np.nan, np.float32)
SPOILT = {
    "older": (older, {}, "older than the image"),
    "torn": (torn, {}, "damaged"),
    "corrupt": (flipped_bytes, {}, "damaged"),
    "no latents": (changing(latents=None), {}, "without latents or the size of their image"),
    "no size": (changing(original_size=None), {}, "without latents or the size of their image"),
    "another size": (changing(original_size=np.array([128, 136])), {}, "made from an image of another size"),
    "another bucket": (changing(latents=np.zeros((4, 16, 24))), {}, "made for another resolution or bucket"),
    "other channels": (changing(latents=np.zeros((16, 16, 16))), {}, "made for another resolution or bucket"),
    "no number": (changing(latents=NO_NUMBER), {}, "with numbers that are not finite"),
    "no mirror image": (changing(latents_flipped=None), {"flip_aug": True}, "without the flipped version"),
    "mirror image of another bucket": (
        changing(latents_flipped=np.zeros((4, 24, 16))), {"flip_aug": True}, "made for another resolution or bucket"
    ),
    "no mask": (changing(alpha_mask=None), {"alpha_mask": True}, "without the mask"),
    "mask of another size": (changing(alpha_mask=np.ones((64, 64))), {"alpha_mask": True}, "with a mask of another size"),
    "turned": (turned, {}, "of an image that the other tool did not turn upright"),
    "transparent": (transparent, {}, "of a transparent image, which the other tool took for an opaque one"),
    "16 bits": (sixteen_bits, {}, "of an image of more than 8 bits, which the other tool clipped"),
}  # fmt: skip


@pytest.mark.parametrize("named", NAMES)
@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_does_not_fit_is_encoded_again_and_says_why(tmp_path, named, spoilt):
    spoil, options, reason = SPOILT[spoilt]
    folder = write_images(tmp_path / "images", alpha="alpha_mask" in options)
    for image in folder.glob("*.png"):
        os.utime(image, ns=(1, 1))
    files = cache_of_another_tool(prepare(subset_of(folder, **options)), named)
    spoil(folder, files["3.png"])
    cache = filled(prepare(subset_of(folder, **options)))
    told = "damaged" if named == "train_network" and spoilt == "torn" else f"in another tool's cache, {reason}"
    assert (cache.report.borrowed, cache.report.encoded) == (5, {told: 1})
    assert cache.read((0, 3), False).std.any() and not cache.read((0, 2), False).std.any()
    again = filled(prepare(subset_of(folder, **options))).report
    assert (again.reused, again.borrowed, again.encoded) == (1, 5, {})


def test_masks_of_a_folder_are_in_no_other_tools_cache(tmp_path):
    folder, masks = write_images(tmp_path / "images", alpha=True), write_images(tmp_path / "masks")
    cache_of_another_tool(prepare(subset_of(folder, alpha_mask=True)))
    cache = filled(prepare(subset_of(folder, conditioning_data_dir=masks)))
    assert (cache.report.borrowed, cache.report.encoded) == (0, {"in another tool's cache, without the mask": 6})


def test_a_mask_that_is_not_asked_for_is_not_applied(tmp_path):
    folder = write_images(tmp_path / "images")
    for file in cache_of_another_tool(prepare(subset_of(folder))).values():
        with np.load(file) as entry:
            _, rows, columns = entry["latents"].shape
        change(file, alpha_mask=np.zeros((8 * rows, 8 * columns), np.float32))
    cache = filled(prepare(subset_of(folder)))
    assert cache.report.borrowed == 6
    assert cache.read((0, 0), False).mask is None


def test_an_opaque_alpha_channel_is_no_obstacle(tmp_path):
    folder = write_images(tmp_path / "images", SIZES[:2])
    for image in folder.glob("*.png"):
        with Image.open(image) as opened:
            opened.convert("RGBA").save(image)
    prepared = prepare(subset_of(folder))
    cache_of_another_tool(prepared)
    assert filled(prepared).report.borrowed == 2


def test_an_image_whose_name_ends_like_that_of_a_mirror_image(tmp_path):
    """a_flip.npz may belong to a.png or to a_flip.png; neither of them takes it."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate(("a", "a_flip")):
        write_image(folder / f"{name}.png", (128, 128), seed)
    prepared = prepare(subset_of(folder, flip_aug=True))
    for file in cache_of_another_tool(prepared, "older").values():
        change(file, latents_flipped=None)
    assert filled(prepared).report.encoded == {
        "in another tool's cache, without the flipped version": 1,
        "in another tool's cache, perhaps of the mirror image of another": 1,
    }
