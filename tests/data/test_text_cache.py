"""Encoded captions on disk and in memory: what the files hold, when they are made again, and that nothing wrong is ever used."""
from __future__ import annotations

import errno
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from library.checkpoint.temporary import temporary_path
from library.data.text_cache import EMPTY, TextCacheSettings
from library.data.text_cache_fill import fill_text_cache
from library.data.text_layout import TextLayout
from library.errors import UserError
from library.seeding import torch_generator
from library.types import Conditioning
from tests.data.tiny_datasets import SIZES, prepare, spoil_inside, subset_of, write_images

ONE = TextLayout("_sd_te", ("hidden_state",), (4,))
TWO = TextLayout("_te_outputs", ("hidden_state1", "hidden_state2"), (4, 6), "pool2")
SOURCE = {"encoder": ["encoder 1"], "tokenizer": ["tokenizer 1"], "precision": "no", "clip_skip": 1}
SHUFFLED = {"shuffle_caption": True, "keep_tokens": 1}


def encode(captions, layout=ONE, dtype=torch.float32):
    """Stands in for text encoders: numbers that are a function of the text."""
    states = [torch.randn(3, sum(layout.widths), generator=torch_generator(caption)) for caption in captions]
    pooled = torch.stack([state[0, :5] for state in states]) if layout.pooled_key else None
    return layout.split(Conditioning(torch.stack(states).to(dtype), pooled))


def settings(**options):
    return TextCacheSettings(
        **{"on_disk": True, "batch_size": 4, "skip_cache_check": False, "layout": ONE, "source": SOURCE, **options}
    )


def fill(prepared, encoder=encode, **options):
    """The cache, and the captions that were encoded for it."""
    encoded = []

    def noting(captions):
        encoded.extend(captions)
        return encoder(captions)

    return fill_text_cache(prepared, noting, settings(**options)), encoded


def contents(path):
    with np.load(path, allow_pickle=False) as entry:
        return {key: entry[key] for key in entry.files}


def entries(folder):
    return sorted(path.name for path in folder.glob("*.npz"))


def assert_right(cache, prepared, encoder=encode):
    """Every rendering of every caption reads as what the encoder makes of that very text."""
    for dataset, data in enumerate(prepared):
        for index in range(len(data.records)):
            for caption in cache.captions((dataset, index)):
                found = cache.read((dataset, index), caption)
                for key, array in encoder([caption]).items():
                    np.testing.assert_array_equal(found[key], array[0])


@pytest.fixture
def folder(tmp_path):
    return write_images(tmp_path / "images")


def test_a_file_holds_what_others_read(folder):
    prepared = prepare(subset_of(folder))
    cache, encoded = fill(prepared, lambda captions: encode(captions, TWO), layout=TWO)
    assert entries(folder) == [f"{number}_te_outputs.npz" for number in range(len(SIZES))]
    assert sorted(encoded) == [f"one {number}, two, three, four, five" for number in range(len(SIZES))]
    expected = encode(["one 3, two, three, four, five"], TWO)
    entry = contents(folder / "3_te_outputs.npz")
    assert entry.keys() == {*TWO.keys, "fingerprint"}
    assert {key: array.shape for key, array in entry.items() if array.ndim} == {
        "hidden_state1": (3, 4), "hidden_state2": (3, 6), "pool2": (5,)
    }  # fmt: skip
    for key, array in expected.items():
        np.testing.assert_array_equal(entry[key], array[0])


def test_a_layout_joins_what_it_has_split():
    conditioning = Conditioning(torch.randn(2, 3, 10), torch.randn(2, 5))
    arrays = TWO.split(conditioning)
    assert arrays["hidden_state2"].shape == (2, 3, 6)
    joined = TWO.join(arrays)
    assert torch.equal(joined.hidden_states, conditioning.hidden_states) and torch.equal(joined.pooled, conditioning.pooled)


def test_a_cache_that_fits_is_used(folder):
    prepared = prepare(subset_of(folder))
    cache, _ = fill(prepared)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    again, encoded = fill(prepare(subset_of(folder)))
    assert encoded == []
    assert again.report.lines() == [f"text encoder outputs: {len(SIZES)} captions from the cache, 0 encoded"]
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert_right(again, prepared)


@pytest.mark.parametrize("variants", [1, 5])
def test_memory_and_disk_hold_the_same_and_memory_writes_no_files(tmp_path, variants):
    one, two = write_images(tmp_path / "a" / "x"), write_images(tmp_path / "b" / "x")
    caption = SHUFFLED if variants > 1 else {}
    for place, on_disk in ((one, True), (two, False)):
        prepared = prepare(subset_of(place, caption=caption))
        cache, _ = fill(prepared, on_disk=on_disk, variants=variants)
        assert_right(cache, prepared)
    assert entries(two) == []
    assert len(entries(one)) == len(SIZES)


def stale_caption(folder):
    (folder / "1.txt").write_text("another caption", encoding="utf-8")


def stale_torn(folder):
    path = folder / "1_sd_te.npz"
    path.write_bytes(path.read_bytes()[:-100])


def stale_empty(folder):
    (folder / "1_sd_te.npz").write_bytes(b"")


def stale_inside(folder):
    spoil_inside(folder / "1_sd_te.npz", "hidden_state")


def stale_foreign(folder):
    np.savez(folder / "1_sd_te.npz", hidden_state=np.zeros((3, 4), np.float32))


def stale_future(folder):
    path = folder / "1_sd_te.npz"
    np.savez(path, **{**contents(path), "fingerprint": np.array("v9:3f2a")})


def stale_renamed(folder):
    shutil.copy(folder / "3_sd_te.npz", folder / "1_sd_te.npz")


def stale_robbed(folder):
    path = folder / "1_sd_te.npz"
    np.savez(path, fingerprint=contents(path)["fingerprint"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (stale_caption, "made from other captions"),
        (stale_torn, "damaged"),
        (stale_empty, "damaged"),
        (stale_inside, "damaged"),
        (stale_foreign, "without a fingerprint"),
        (stale_future, "with an unknown fingerprint"),
        (stale_renamed, "made from other captions"),
        (stale_robbed, "damaged"),
    ],
)
def test_a_spoilt_entry_is_made_again_and_reported(folder, spoil, reason):
    fill(prepare(subset_of(folder)))
    spoil(folder)
    prepared = prepare(subset_of(folder))
    cache, encoded = fill(prepared)
    assert encoded == [prepared[0].records[1].caption]
    assert f"{len(SIZES) - 1} captions from the cache, 1 encoded (1 {reason}" in cache.report.lines()[0]
    assert_right(cache, prepared)
    assert fill(prepare(subset_of(folder)))[1] == []


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"encoder": ["encoder 2"]}, "another text encoder"),
        ({"tokenizer": ["tokenizer 2"]}, "another tokenizer"),
        ({"precision": "bf16"}, "another mixed_precision"),
        ({"clip_skip": 2}, "another clip_skip"),
        ({"max_token_length": 225}, "another max_token_length"),
        ({"weighted": True}, "another weighted_captions"),
    ],
)
def test_another_encoder_or_setting_makes_entries_stale(folder, changed, reason):
    fill(prepare(subset_of(folder)))
    cache, encoded = fill(prepare(subset_of(folder)), source={**SOURCE, **changed})
    assert len(encoded) == len(SIZES)
    assert f"made with {reason}" in cache.report.lines()[0]


@pytest.mark.parametrize("option", [{"caption_prefix": "a photo of"}, {"caption_suffix": "on paper"}, {"secondary_separator": ","}])
def test_what_is_encoded_is_the_processed_caption(folder, option):
    plain = prepare(subset_of(folder))
    fill(plain)
    expected = {"caption_prefix": "a photo of one 0, two", "caption_suffix": "five on paper", "secondary_separator": "one 0, two"}
    cache, encoded = fill(prepare(subset_of(folder, caption=option)))
    assert len(encoded) == (0 if "secondary_separator" in option else len(SIZES))  # which changes nothing of these captions
    assert expected[next(iter(option))] in cache.captions((0, 0))[0]


def test_identical_texts_are_encoded_once(folder):
    for number in (0, 1, 2, 4):
        (folder / f"{number}.txt").write_text("the same", encoding="utf-8")
    for on_disk in (False, True):
        prepared = prepare(subset_of(folder))
        cache, encoded = fill(prepared, on_disk=on_disk, batch_size=1)
        assert len(encoded) == len(set(encoded)) == 3
        assert_right(cache, prepared)


def test_an_image_in_two_datasets_shares_its_entry_unless_its_caption_differs(folder):
    datasets = [*prepare(subset_of(folder)), *prepare(subset_of(folder), resolution=(192, 192))]
    cache, encoded = fill(datasets)
    assert len(encoded) == len(entries(folder)) == len(SIZES)
    datasets += prepare(subset_of(folder, caption={"caption_prefix": "x"}))
    for number in range(2):
        cache, encoded = fill(datasets)
        assert len(encoded) == (0 if number else len(SIZES))
        assert len(entries(folder)) == 2 * len(SIZES)
        assert_right(cache, datasets)


def test_processes_share_the_work(folder):
    prepared = prepare(subset_of(folder, caption={"caption_dropout_rate": 0.5}))
    results = [fill(prepared, rank=rank, world_size=4) for rank in range(4)]
    assert sorted(len(encoded) for _, encoded in results) == [1, 2, 2, 2]
    for cache, _ in results:
        assert_right(cache, prepared)
        cache.read(EMPTY, "")


def test_two_runs_may_fill_one_folder_at_once(folder):
    prepared = prepare(subset_of(folder, caption=SHUFFLED))
    others = []

    def while_another_run_does_the_same(captions):
        if not others:
            others.append(fill(prepared, variants=3)[0])
        return encode(captions)

    cache, _ = fill(prepared, while_another_run_does_the_same, variants=3)
    assert_right(cache, prepared)
    assert_right(others[0], prepared)
    assert fill(prepared, variants=3)[1] == []


def test_skip_cache_check_takes_files_that_exist(folder):
    fill(prepare(subset_of(folder)))
    stale_caption(folder)
    (folder / "2_sd_te.npz").unlink()
    prepared = prepare(subset_of(folder))
    cache, encoded = fill(prepared, skip_cache_check=True, source={"encoder": ["encoder 2"]})
    assert cache.report.reused == len(SIZES) - 1
    found = cache.read((0, 1), prepared[0].records[1].caption)
    np.testing.assert_array_equal(found["hidden_state"], encode(["one 1, two, three, four, five"])["hidden_state"][0])


def test_skip_cache_check_does_not_train_on_another_length_or_on_too_few_variants(folder):
    prepared = prepare(subset_of(folder))
    fill(prepared, lambda captions: {"hidden_state": torch.zeros(len(captions), 7, 4)})
    cache, _ = fill(prepared, skip_cache_check=True)
    with pytest.raises(UserError, match=r"0_sd_te\.npz: hidden_state is 7 x 4, this model needs 3 x 4; leave out skip_cache"):
        cache.read((0, 0), cache.captions((0, 0))[0])
    cache, _ = fill(prepare(subset_of(folder, caption=SHUFFLED)), skip_cache_check=True, variants=3)
    with pytest.raises(UserError, match=r"0_sd_te\.npz cannot be read"):
        cache.read((0, 0), cache.captions((0, 0))[1])


def test_an_entry_that_another_run_replaced_is_not_used(folder):
    prepared = prepare(subset_of(folder))
    cache, _ = fill(prepared)
    fill(prepared, source={"encoder": ["encoder 2"]})
    with pytest.raises(UserError, match="was replaced while this run uses it"):
        cache.read((0, 0), cache.captions((0, 0))[0])


def test_editing_a_caption_during_the_run_is_no_concern_of_the_run(folder):
    prepared = prepare(subset_of(folder))
    cache, _ = fill(prepared)
    stale_caption(folder)
    assert_right(cache, prepared)


def test_captions_without_finite_numbers_are_named_and_leave_no_files(folder):
    def encode_badly(captions):
        arrays = encode(captions)
        for number, caption in enumerate(captions):
            if "one 2" in caption or "one 4" in caption:
                arrays["hidden_state"][number, 1, 1] = float("nan")
        return arrays

    with pytest.raises(UserError, match='no finite numbers of "one 2.*", "one 4.*": use mixed_precision'):
        fill(prepare(subset_of(folder)), encode_badly)
    assert len(entries(folder)) == len(SIZES) - 2


@pytest.mark.parametrize(("dtype", "stored"), [(torch.bfloat16, np.float32), (torch.float16, np.float16)])
def test_half_precision_is_kept_exactly(folder, dtype, stored):
    prepared = prepare(subset_of(folder))
    cache, _ = fill(prepared, lambda captions: encode(captions, dtype=dtype))
    caption = cache.captions((0, 0))[0]
    found = cache.read((0, 0), caption)["hidden_state"]
    assert found.dtype == stored
    assert torch.equal(torch.from_numpy(found).to(dtype), encode([caption], dtype=dtype)["hidden_state"][0])


def test_leftovers_of_a_killed_run_are_removed(folder):
    temporary = temporary_path(folder / "0_sd_te.npz")
    leftover = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))  # no process has such an id
    leftover.write_bytes(b"half")
    fill(prepare(subset_of(folder)))
    assert not leftover.exists()


def test_a_full_disk_is_named_and_leaves_nothing_torn(folder, monkeypatch):
    def no_room(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", no_room)
    with pytest.raises(UserError, match="text encoder cache .* cannot be written: No space left on device"):
        fill(prepare(subset_of(folder)))
    assert entries(folder) == [] and not list(folder.glob(".*"))


def test_batches_are_full_and_progress_is_told(folder):
    sizes, progress = [], []

    def noting(captions):
        sizes.append(len(captions))
        return encode(captions)

    prepared = prepare(subset_of(folder, caption=SHUFFLED))
    fill_text_cache(prepared, noting, settings(variants=3), lambda done, total: progress.append((done, total)))
    assert set(sizes[:-1]) == {4} and sum(sizes) == sum(len(set(names)) for names in renderings(prepared, 3))
    assert progress == sorted(progress) and progress[-1] == (len(SIZES), len(SIZES))


def renderings(prepared, variants):
    cache, _ = fill(prepared, on_disk=False, variants=variants)
    return [cache.captions((0, index)) for index in range(len(prepared[0].records))]


def test_a_worker_gets_no_copy_of_what_is_in_memory(folder):
    cache, _ = fill(prepare(subset_of(folder)), on_disk=False)
    assert len(pickle.dumps(cache)) < 20_000 < len(pickle.dumps(cache._memory)) * 40
    assert pickle.loads(pickle.dumps(cache)).captions((0, 0)) == cache.captions((0, 0))


def test_variants_depend_on_the_name_of_the_image_alone(tmp_path):
    caption = {"shuffle_caption": True}
    one = prepare(subset_of(write_images(tmp_path / "a"), caption=caption))
    two = prepare(subset_of(write_images(tmp_path / "b"), caption=caption))
    assert renderings(one, 4) == renderings(two, 4)
    assert len({caption.replace("0", "") for caption in renderings(one, 4)[0]}) > 1
    same_text = replace(one[0].records[1], caption=one[0].records[0].caption)
    one[0].records[1] = same_text
    first, second = renderings(one, 6)[:2]
    assert first != second and Path(same_text.path).name == "1.png"
