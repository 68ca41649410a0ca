"""Pictures that are there twice are found, whatever was done to the copy; others are not; and not by comparing all pairs."""
from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from library.config.datasets import DatasetSettings
from library.data.fingerprints import Fingerprint, difference_hashes, fingerprint, is_blank, normalised
from library.data.lookalikes import LEAST_CORRELATION, MOST_BITS, Lookalike, _candidates, compare_pictures, find_lookalikes
from library.data.records import ImageRecord, PreparedDataset
from tests.data.tiny_datasets import prepare, subset_of, write_images


def smooth(seed: int, size=(320, 240)) -> Image.Image:
    """Soft blobs of colour, as photos have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def changed(picture: Image.Image, how: str, folder) -> str:
    path = folder / f"{how}.{'jpg' if how in ('worse', 'cmyk', 'turned') else 'png'}"
    options = {}
    if how == "worse":
        options = {"quality": 30}
    elif how == "cmyk":
        picture = picture.convert("CMYK")
    elif how == "smaller":
        picture = picture.resize((130, 99))
    elif how == "larger":
        picture = picture.resize((1000, 750))
    elif how == "brighter":
        picture = picture.point(lambda value: min(255, value + 12))
    elif how == "grey":
        picture = picture.convert("L")
    elif how == "16 bits":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif how == "palette":
        picture = picture.quantize(64)
    elif how == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture, options = picture.transpose(Image.Transpose.ROTATE_90), {"exif": exif}
    picture.save(path, **options)
    return str(path)


@pytest.mark.parametrize(
    "how", ["worse", "cmyk", "smaller", "larger", "brighter", "grey", "16 bits", "palette", "turned"]
)
def test_a_changed_copy_looks_like_its_original(how, tmp_path):
    original, copy = changed(smooth(1), "original", tmp_path), changed(smooth(1), how, tmp_path)
    prints = {path: fingerprint(path) for path in (original, copy)}
    assert find_lookalikes(prints) == [Lookalike(copy, original, exact=False)]


def test_other_pictures_do_not(tmp_path):
    paths = []
    for seed in range(60):
        paths.append(str(tmp_path / f"{seed}.png"))
        smooth(seed).save(paths[-1])
    assert find_lookalikes({path: fingerprint(path) for path in paths}) == []


def test_colours_under_transparency_are_not_seen(tmp_path):
    for name, hidden in (("red", (255, 0, 0, 0)), ("blue", (0, 0, 255, 0))):
        picture = Image.new("RGBA", (64, 64), hidden)
        picture.paste(smooth(3, (40, 30)), (10, 20))
        picture.save(tmp_path / f"{name}.png")
    red, blue = (fingerprint(str(tmp_path / f"{name}.png")).grey for name in ("red", "blue"))
    assert np.array_equal(red, blue) and red[0, 0] == 255


def test_copies_are_told_apart_from_near_duplicates(tmp_path):
    for name in ("b.png", "d.png"):
        smooth(5).save(tmp_path / name)
    shutil.copy(tmp_path / "b.png", tmp_path / "c.png")
    smooth(5).resize((200, 150)).save(tmp_path / "e.png")
    smooth(6).save(tmp_path / "a.png")
    prints = {name: fingerprint(str(tmp_path / f"{name}.png")) for name in "abcde"}
    assert find_lookalikes(prints) == [Lookalike("c", "b", True), Lookalike("d", "b", True), Lookalike("e", "b", False)]


def test_blank_pictures_are_alike_only_as_files(tmp_path):
    for name, grey in (("a", 250), ("b", 10), ("c", 250)):
        Image.new("L", (64, 64), grey).save(tmp_path / f"{name}.png")
    Image.new("L", (65, 64), 250).save(tmp_path / "d.png")
    prints = {name: fingerprint(str(tmp_path / f"{name}.png")) for name in "abcd"}
    assert all(is_blank(found.grey) for found in prints.values())
    assert find_lookalikes(prints) == [Lookalike("c", "a", True)]


def greys(count: int, seed: int) -> np.ndarray:
    return np.stack([np.asarray(smooth(seed + number).convert("L").resize((18, 16))) for number in range(count)])


def test_what_is_found_is_what_comparing_all_pairs_finds(tmp_path):
    rng = np.random.default_rng(0)
    originals = greys(80, 100)
    noisy = originals[rng.integers(0, 80, 120)].astype(int) + rng.integers(-12, 13, (120, 16, 18))
    everything = np.concatenate([originals, noisy.clip(0, 255).astype(np.uint8)])
    hashes, flat = difference_hashes(everything), normalised(everything)
    similar = flat @ flat.T >= LEAST_CORRELATION
    similar &= np.array([[bin(int(one ^ other)).count("1") <= MOST_BITS for one in hashes] for other in hashes])
    expected = {later: int(np.flatnonzero(similar[later, :later])[0]) for later in range(200) if similar[later, :later].any()}
    prints = {str(number): Fingerprint(bytes([number]), grey) for number, grey in enumerate(everything)}
    found = {int(pair.path): int(pair.of) for pair in find_lookalikes(prints)}
    assert len(expected) > 60
    assert found.keys() == expected.keys()
    assert all(similar[later, earlier] or similar[later, expected[later]] for later, earlier in found.items())


def test_every_pair_within_the_distance_is_a_candidate_and_few_others_are():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 20_000, dtype=np.uint64)
    planted = set()
    for number in range(500):
        bits = rng.choice(64, MOST_BITS, replace=False)
        hashes[10_000 + number] = hashes[number] ^ np.uint64(sum(1 << int(bit) for bit in bits))
        planted.add((number, 10_000 + number))
    found = {pair for earlier, later in _candidates(hashes) for pair in zip(earlier.tolist(), later.tolist(), strict=True)}
    assert planted <= found
    assert len(found) < 600  # of two hundred million


def test_all_pictures_of_a_run_are_compared_by_dataset(tmp_path):
    images = write_images(tmp_path / "a")
    shutil.copy(images / "0.png", images / "9.png")
    (first,), (second,) = prepare(subset_of(images)), prepare(subset_of(write_images(tmp_path / "b", [(96, 96)])))
    steps = []
    comparison = compare_pictures([first, second], lambda *progress: steps.append(progress))
    assert comparison.lookalikes == [[Lookalike(str(images / "9.png"), str(images / "0.png"), exact=True)], []]
    assert comparison.undecodable == []
    assert steps == [(number, 8) for number in range(1, 9)]


def test_a_held_out_picture_that_is_trained_on_is_told(tmp_path):
    for name in ("train", "judge", "judge2"):
        smooth(1).save(tmp_path / f"{name}.png")
    records = {
        name: ImageRecord(str(tmp_path / f"{name}.png"), (320, 240), "", True, 0, False, 1, (64, 64), (85, 64))
        for name in ("train", "judge", "judge2")
    }
    settings = DatasetSettings(resolution=(64, 64))
    held_out = PreparedDataset(settings, [records["judge"], records["judge2"]])
    comparison = compare_pictures([PreparedDataset(settings, [records["train"]], validation=held_out)])
    assert [(pair.of, pair.leaks) for pair in comparison.lookalikes[0]] == [(records["train"].path, True)] * 2
    comparison = compare_pictures([PreparedDataset(settings, [], validation=held_out)])
    assert [pair.leaks for pair in comparison.lookalikes[0]] == [False]


def test_damaged_pictures_and_lone_latents(tmp_path):
    images = write_images(tmp_path / "a", [(96, 96), (96, 96)])
    (prepared,) = prepare(subset_of(images))
    (images / "1.png").write_bytes((images / "1.png").read_bytes()[:200])
    prepared.records.append(ImageRecord("nowhere.npz", (96, 96), "", True, 0, False, 1, (64, 64), (64, 64)))
    comparison = compare_pictures([prepared])
    assert [error.path for error in comparison.undecodable] == [str(images / "1.png")]
    assert comparison.lookalikes == [[]]
