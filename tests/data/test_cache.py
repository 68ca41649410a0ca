"""Latents on disk and in memory: what the files hold, when they are made again, and that nothing wrong is ever used."""
from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import torch

from library.checkpoint.temporary import temporary_path
from library.data.cache import check_cacheable
from library.data.cache_file import FLIPPED_KEYS, LATENT_KEYS
from library.data.cache_fill import fill_cache
from library.data.images import fit_image, read_image
from library.data.pixels import model_input
from library.errors import UserError
from library.types import Posterior
from tests.data.tiny_datasets import SIZES, cache_settings, encode, prepare, spoil_inside, subset_of, write_image, write_images


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


def fill_counting(prepared, **options):
    """The cache, and how many images were encoded for it (mirror images not counted)."""
    cache = fill_cache(prepared, encode, cache_settings(**options))
    return cache, sum(cache.report.encoded.values())


def contents(path):
    with np.load(path, allow_pickle=False) as entry:
        return {key: entry[key] for key in entry.files}


def entries(folder):
    return sorted(path.name for path in folder.glob("*.npz"))


def test_a_file_holds_what_others_read_and_the_posterior(folder):
    prepared = prepare(subset_of(folder, flip_aug=True))
    cache, encoded = fill_counting(prepared)
    assert encoded == len(SIZES)
    assert entries(folder) == [f"{number}_{width:04d}x{height:04d}_sd.npz" for number, (width, height) in enumerate(SIZES)]
    for index, record in enumerate(prepared[0].records):
        entry = contents(cache.path_of((0, index)))
        image = fit_image(read_image(record.path), record.resized, record.bucket)
        posterior = encode(model_input([image]))
        width, height = record.bucket
        assert entry["latents"].shape == (4, height // 8, width // 8)
        assert entry["original_size"].tolist() == list(record.size)
        assert {key for key in entry if entry[key].dtype == np.float32} == {*LATENT_KEYS, *FLIPPED_KEYS}
        np.testing.assert_allclose(entry["latents_mean"], posterior.mean[0], atol=1e-6)
        np.testing.assert_allclose(entry["latents_std"], posterior.std[0], atol=1e-6)
        np.testing.assert_allclose(entry["latents_mean_flipped"], posterior.mean[0].flip(-1), atol=1e-6)
        sample = (entry["latents"] - entry["latents_mean"]) / entry["latents_std"]
        assert 0.7 < sample.std() < 1.3
        assert not np.array_equal(entry["latents"], entry["latents_flipped"][..., ::-1])


def test_crop_values_in_the_file_are_those_of_an_image_fitted_into_its_bucket(tmp_path):
    folder = write_images(tmp_path / "a", [(200, 100)])
    cache, _ = fill_counting(prepare(subset_of(folder), enable_bucket=False))
    assert contents(cache.path_of((0, 0)))["crop_ltrb"].tolist() == [0, 32, 128, 96]


def test_files_are_the_same_to_the_bit_in_another_run(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for place in (folder, copy):
        fill_counting(prepare(subset_of(place)))
    for name in entries(folder):
        one, two = contents(folder / name), contents(copy / name)
        assert all(np.array_equal(one[key], two[key]) for key in one)


def test_a_cache_that_fits_is_used(folder):
    prepared = prepare(subset_of(folder, flip_aug=True))
    first, _ = fill_counting(prepared)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}

    second, encoded = fill_counting(prepare(subset_of(folder, flip_aug=True)))
    assert encoded == 0 and second.report.reused == len(SIZES)
    assert second.report.lines() == [f"latents: {len(SIZES)} images from the cache, 0 encoded"]
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    without_flips, encoded = fill_counting(prepare(subset_of(folder)))
    assert encoded == 0
    np.testing.assert_array_equal(without_flips.read((0, 1), False).mean, first.read((0, 1), False).mean)


def test_memory_and_disk_hold_the_same(tmp_path):
    folder = write_images(tmp_path / "a", alpha=True)
    prepared = prepare(subset_of(folder, flip_aug=True, alpha_mask=True))
    disk, _ = fill_counting(prepared)
    memory, encoded = fill_counting(prepared, on_disk=False)
    assert encoded == len(SIZES)
    for index in range(len(SIZES)):
        for flipped in (False, True):
            one, two = disk.read((0, index), flipped), memory.read((0, index), flipped)
            for field in ("mean", "std", "mask"):
                np.testing.assert_array_equal(getattr(one, field), getattr(two, field))


def test_memory_writes_no_files(folder):
    fill_counting(prepare(subset_of(folder)), on_disk=False)
    assert entries(folder) == []


def stale_image(folder):
    write_image(folder / "1.png", SIZES[1], seed=99)
    os.utime(folder / "1.png", ns=(1, 1))


def stale_torn(folder):
    path = next(folder.glob("1_*.npz"))
    path.write_bytes(path.read_bytes()[:-200])


def stale_empty(folder):
    next(folder.glob("1_*.npz")).write_bytes(b"")


def stale_inside(folder):
    spoil_inside(next(folder.glob("1_*.npz")), "latents_std")


def stale_future(folder):
    path = next(folder.glob("1_*.npz"))
    np.savez(path, **{**contents(path), "fingerprint": np.array("v9:3f2a")})


def stale_renamed(folder):
    shutil.copy(next(folder.glob("3_*.npz")), next(folder.glob("1_*.npz")))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (stale_image, "made before the image changed"),
        (stale_torn, "damaged"),
        (stale_empty, "damaged"),
        (stale_inside, "damaged"),
        (stale_future, "unknown fingerprint"),
        (stale_renamed, "made from another image"),
    ],
)
def test_a_spoilt_entry_is_made_again_and_reported(folder, spoil, reason):
    cache, _ = fill_counting(prepare(subset_of(folder)))
    spoil(folder)
    cache, encoded = fill_counting(prepare(subset_of(folder)))
    assert encoded == 1
    assert reason in cache.report.lines()[0]
    record = prepare(subset_of(folder))[0].records[1]
    expected = encode(model_input([fit_image(read_image(record.path), record.resized, record.bucket)]))
    np.testing.assert_allclose(cache.read((0, 1), False).mean, expected.mean[0], atol=1e-6)
    assert fill_counting(prepare(subset_of(folder)))[1] == 0


@pytest.mark.parametrize(
    ("dataset_options", "subset_options", "cache_options", "reason"),
    [
        ({"resolution": (192, 192)}, {}, {}, "another resolution or bucket"),
        ({}, {"resize_interpolation": "nearest"}, {}, "another resize_interpolation"),
        ({}, {"alpha_mask": True}, {}, "another alpha_mask"),
        ({}, {"flip_aug": True}, {}, "without the flipped version"),
        ({}, {}, {"vae_fingerprint": "vae 2"}, "another VAE"),
    ],
)
def test_other_settings_make_entries_stale(tmp_path, dataset_options, subset_options, cache_options, reason):
    folder = write_images(tmp_path / "a", SIZES[:2])
    fill_counting(prepare(subset_of(folder)))
    cache, encoded = fill_counting(prepare(subset_of(folder, **subset_options), **dataset_options), **cache_options)
    assert encoded == 2
    assert reason in cache.report.lines()[0]


def test_keys_of_other_tools_are_kept_and_our_stale_ones_are_not(folder):
    cache, _ = fill_counting(prepare(subset_of(folder, flip_aug=True)))
    path = cache.path_of((0, 1))
    np.savez(path, **contents(path), latents_8x8=np.ones(3))
    stale_image(folder)
    fill_counting(prepare(subset_of(folder)))
    entry = contents(path)
    assert entry["latents_8x8"].tolist() == [1, 1, 1]
    assert "latents_flipped" not in entry


def test_skip_cache_check_takes_files_that_exist(folder):
    fill_counting(prepare(subset_of(folder)))
    stale_image(folder)
    next(folder.glob("2_*.npz")).unlink()
    cache, encoded = fill_counting(prepare(subset_of(folder)), skip_cache_check=True, vae_fingerprint="vae 2")
    assert encoded == 1
    assert cache.read((0, 1), False).mean.shape[0] == 4


def test_skip_cache_check_uses_a_sample_without_its_posterior(folder):
    cache, _ = fill_counting(prepare(subset_of(folder)))
    path = cache.path_of((0, 1))
    sample = contents(path)["latents"]
    np.savez(path, latents=sample, original_size=np.array(SIZES[1]), crop_ltrb=np.zeros(4))
    cache, _ = fill_counting(prepare(subset_of(folder)), skip_cache_check=True)
    latents = cache.read((0, 1), False)
    np.testing.assert_array_equal(latents.mean, sample)
    assert not latents.std.any()


def test_skip_cache_check_does_not_train_on_latents_of_another_size(folder):
    fill_counting(prepare(subset_of(folder)))
    cache, _ = fill_counting(prepare(subset_of(folder), resolution=(192, 192)), skip_cache_check=True)
    with pytest.raises(UserError, match=r"0_0096x0096_sd\.npz.*skip_cache_check"):
        cache.read((0, 0), False)


def test_skip_cache_check_names_a_file_without_what_is_needed(folder):
    fill_counting(prepare(subset_of(folder)))
    cache, _ = fill_counting(prepare(subset_of(folder, flip_aug=True)), skip_cache_check=True)
    with pytest.raises(UserError, match=r"0_0096x0096_sd\.npz cannot be read"):
        cache.read((0, 0), True)


def test_an_entry_that_another_run_replaced_is_not_used(folder):
    cache, _ = fill_counting(prepare(subset_of(folder)))
    fill_counting(prepare(subset_of(folder)), vae_fingerprint="vae 2")
    with pytest.raises(UserError, match="was replaced"):
        cache.read((0, 0), False)


def test_touching_an_image_during_the_run_is_no_concern_of_the_run(folder):
    cache, _ = fill_counting(prepare(subset_of(folder)))
    before = cache.read((0, 1), False)
    stale_image(folder)
    np.testing.assert_array_equal(cache.read((0, 1), False).mean, before.mean)


def test_bad_latents_name_their_images_and_leave_no_files(folder):
    def encode_badly(images, paths):
        posterior = encode(images)
        bad = images.shape[-1] != images.shape[-2]
        return Posterior(posterior.mean, posterior.std * float("nan")) if bad else posterior

    prepared = prepare(subset_of(folder))
    bad = [record for record in prepared[0].records if record.bucket[0] != record.bucket[1]]
    with pytest.raises(UserError, match="another --vae") as caught:
        fill_cache(prepared, encode_badly, cache_settings())
    assert 0 < len(bad) < len(SIZES)
    assert all(record.path in str(caught.value) for record in bad)
    assert len(entries(folder)) == len(SIZES) - len(bad)


def test_images_that_cannot_be_decoded_are_all_named_and_the_others_encoded(folder):
    prepared = prepare(subset_of(folder))
    for name in ("1.png", "4.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    (folder / "5.png").unlink()
    with pytest.raises(UserError) as caught:
        fill_cache(prepared, encode, cache_settings())
    assert [number for number in range(len(SIZES)) if f"{number}.png" in str(caught.value)] == [1, 4, 5]
    assert len(caught.value.messages) == 3
    assert len(entries(folder)) == len(SIZES) - 3


def test_leftovers_of_a_killed_run_are_removed(folder):
    temporary = temporary_path(folder / "0_0096x0096_sd.npz")
    leftover = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))  # no process has such an id
    leftover.write_bytes(b"half")
    fill_counting(prepare(subset_of(folder)))
    assert not leftover.exists()


def test_two_images_of_one_stem_and_size_do_not_share_latents(tmp_path):
    one, two = write_images(tmp_path / "a", [(96, 96)]), tmp_path / "b"
    prepared = prepare(subset_of(one), subset_of(write_images(two, [(96, 96)])))
    write_image(one / "0.jpg", (96, 96), seed=5)
    prepared[0].records[1].path = str(one / "0.jpg")
    for _ in range(2):
        cache, _ = fill_counting(prepared)
        assert cache.path_of((0, 0)).name == "0_0096x0096_sd.npz"
        assert cache.path_of((0, 0)) != cache.path_of((0, 1))
        assert not np.array_equal(cache.read((0, 0), False).mean, cache.read((0, 1), False).mean)
    assert cache.report.reused == 2


def test_one_image_at_two_resolutions_and_twice_at_one(tmp_path):
    folder = write_images(tmp_path / "a", SIZES[:3])
    prepared = [*prepare(subset_of(folder)), *prepare(subset_of(folder), resolution=(192, 192)), *prepare(subset_of(folder))]
    for encoded_now in (6, 0):
        cache, encoded = fill_counting(prepared)
        assert encoded == encoded_now
        for dataset in range(3):
            for index, record in enumerate(prepared[dataset].records):
                width, height = record.bucket
                assert cache.read((dataset, index), False).mean.shape == (4, height // 8, width // 8)
    assert cache.path_of((0, 0)) == cache.path_of((2, 0))


def test_processes_share_the_work(folder):
    prepared = prepare(subset_of(folder))
    caches, counts = zip(*(fill_counting(prepared, rank=rank, world_size=4) for rank in range(4)), strict=True)
    assert counts == (2, 2, 1, 1)
    for cache in caches:
        for index in range(len(SIZES)):
            cache.read((0, index), False)


def test_batches_are_of_one_size_and_at_most_vae_batch_size(tmp_path):
    folder = write_images(tmp_path / "a", [(96, 96)] * 5 + [(200, 100)] * 2)
    shapes, progress = [], []

    def encode_noting(images, paths):
        shapes.append(tuple(images.shape))
        return encode(images)

    fill_cache(prepare(subset_of(folder)), encode_noting, cache_settings(), lambda done, total: progress.append((done, total)))
    assert sorted(shape[0] for shape in shapes) == [1, 2, 2, 2]
    assert progress == sorted(progress) and progress[-1] == (7, 7)


def test_a_full_disk_is_named_and_leaves_nothing_torn(folder, monkeypatch):
    def no_room(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.raises(UserError, match="cannot be written: No space left on device"):
        fill_counting(prepare(subset_of(folder)))
    assert sorted(path.suffix for path in folder.iterdir()) == sorted([".png", ".txt"] * len(SIZES))


def test_augmentations_that_no_cache_can_hold(folder):
    subset = subset_of(folder, color_aug=True, random_crop=True, flip_aug=True)
    with pytest.raises(UserError) as caught:
        check_cacheable(prepare(subset))
    assert [message.split(":")[1].split()[0] for message in caught.value.messages] == ["color_aug", "random_crop"]
    check_cacheable(prepare(subset_of(folder, flip_aug=True)))


def test_half_precision_posteriors_become_float32(folder):
    def encode_half(images, paths):
        posterior = encode(images)
        return Posterior(posterior.mean.to(torch.bfloat16), posterior.std.to(torch.float16))

    cache = fill_cache(prepare(subset_of(folder)), encode_half, cache_settings())
    latents = cache.read((0, 0), False)
    assert latents.mean.dtype == latents.std.dtype == np.float32
