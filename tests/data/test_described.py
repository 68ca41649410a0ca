"""Metadata files: what they say, the files that their keys lead to, and latents that stand in for missing images."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.config.datasets import CaptionSettings, DatasetSettings, SubsetSettings
from library.data import described, scan
from library.data.cache_fill import fill_cache
from library.data.metadata_files import assemble_caption
from library.data.pixels import fixed_pixels
from library.data.sources import prepare_datasets
from library.errors import UserError
from tests.data.test_dataset import batches_of
from tests.data.tiny_datasets import cache_settings, encode, spoil_inside, write_image


def describe(folder: Path, content: object, name: str = "meta.json") -> Path:
    text = "\n".join(map(json.dumps, content)) if name.endswith(".jsonl") else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def dataset(file: Path, image_dir: Path | None, resolution=(64, 64), **options) -> DatasetSettings:
    subset = SubsetSettings(metadata_file=file, image_dir=image_dir, where="data.toml subset", **options)
    return DatasetSettings(resolution=resolution, subsets=(subset,), where="data.toml dataset")


def mistakes_of(*arguments, **options) -> list[str]:
    with pytest.raises(UserError) as caught:
        prepare_datasets([dataset(*arguments, **options)])
    return list(caught.value.messages)


@pytest.fixture
def images(tmp_path):
    """a.png of 96x64, b.jpg, sub/c.png, odd.name.png of 64x64."""
    for name, size in {"a.png": (96, 64), "b.jpg": (64, 64), "sub/c.png": (64, 64), "odd.name.png": (64, 64)}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_image(tmp_path / name, size, seed=len(name))
    return tmp_path


@pytest.mark.parametrize(
    ("caption", "tags", "every_line", "expected"),
    [
        ("a frog", "green, wet", False, "a frog,green, wet"),
        ("a frog", None, False, "a frog"),
        ("a frog", "", False, "a frog"),
        (None, "green, wet", False, "green, wet"),
        ("", "green", False, "green"),
        (None, None, False, ""),
        ("one\ntwo", "green", False, "one,green"),
        ("one\n\ntwo", "green, wet", True, "one,green, wet\ntwo,green, wet"),
        ("one\ntwo", "green\nwet", True, "one,green,wet\ntwo,green,wet"),
        ("", "green\nwet", True, "green,wet"),
        (None, "green", True, "green"),
        (" one \r\n two ", None, True, "one\ntwo"),
        ("one\r\ntwo", "green\r\nwet", False, "one,green,wet"),
    ],
)
def test_caption_and_tags(caption, tags, every_line, expected):
    """Tags are lost neither with wildcards nor beside an empty caption."""
    assert assemble_caption(caption, tags, ",", every_line) == expected


def test_the_separator_is_the_subsets(images):
    file = describe(images, {"a.png": {"caption": "frog", "tags": "wet"}})
    (prepared,) = prepare_datasets([dataset(file, images, caption=CaptionSettings(caption_separator=" | "))])
    assert prepared.records[0].caption == "frog | wet"


def test_keys_with_and_without_extension(images):
    keys = ["a", "b.jpg", "sub/c", "odd.name", str(images / "sub" / "c.png")[:-4] + "x"]
    write_image(images / "sub" / "cx.png", (64, 64), 1)
    file = describe(images, {key: {"caption": key} for key in keys})
    (prepared,) = prepare_datasets([dataset(file, images, num_repeats=3)])
    assert [Path(record.path).relative_to(images).as_posix() for record in prepared.records] == [
        "a.png", "b.jpg", "sub/c.png", "odd.name.png", "sub/cx.png",
    ]  # fmt: skip
    assert [record.caption for record in prepared.records] == keys
    assert all(record.has_caption and not record.is_reg and record.num_repeats == 3 for record in prepared.records)
    assert prepared.records[0].size == (96, 64)


def test_json_lines_say_the_same(images):
    rows = [{"image_path": "a.png", "caption": "frog", "tags": "wet"}, {"image_path": "b", "image_size": [64, 64]}]
    file = describe(images, rows, "meta.jsonl")
    file.write_text("\ufeff" + file.read_text(encoding="utf-8").replace("\n", "\r\n\r\n") + "\r\n", encoding="utf-8")
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert [(record.caption, record.has_caption) for record in prepared.records] == [("frog,wet", True), ("", False)]


def test_whole_paths_need_no_folder(images):
    file = describe(images, {str(images / "a.png"): {}, str(images / "sub" / "c"): {}})
    (prepared,) = prepare_datasets([dataset(file, None)])
    assert [Path(record.path).name for record in prepared.records] == ["a.png", "c.png"]


def test_keys_written_on_windows(images):
    file = describe(images, {"sub\\c.png": {}})
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert Path(prepared.records[0].path) == images / "sub" / "c.png"


def test_train_resolution_means_nothing_and_strange_fields_are_noted(images):
    file = describe(images, {"a": {"caption": "x", "train_resolution": [512, 512], "score": 3}, "b": {"caption": "y", "score": 1}})
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert prepared.notes == [f'data.toml subset: the field "score", which 2 entries of {file} have, is not used']


def test_lines_that_are_not_used_are_noted(images):
    file = describe(images, {"a": {"caption": "one\ntwo", "tags": "wet"}, "b": {"caption": "one\n"}})
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert [record.caption for record in prepared.records] == ["one,wet", "one"]
    assert "of 1 captions with several lines only the first is used" in prepared.notes[0]
    (prepared,) = prepare_datasets([dataset(file, images, caption=CaptionSettings(enable_wildcard=True))])
    assert prepared.records[0].caption == "one,wet\ntwo,wet" and not prepared.notes


def test_recorded_sizes_spare_reading_headers(images, monkeypatch):
    monkeypatch.setattr(scan, "FULL_CHECK_PIXELS", 0)
    read = []
    monkeypatch.setattr(scan, "read_header", lambda path, original=scan.read_header: read.append(Path(path).name) or original(path))
    file = describe(images, {"a": {"image_size": [96, 64]}, "b": {}, "odd.name": {"image_size": [640, 64]}})
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert read == ["b.jpg"]
    assert [record.size for record in prepared.records] == [(96, 64), (64, 64), (640, 64)]
    assert fixed_pixels(prepared.records[0], prepared.settings.subsets[0]).image.shape == (64, 64, 3)
    with pytest.raises(UserError, match=r"odd\.name\.png: has 64x64 pixels, but 640x64 .* image_size of its metadata file"):
        fixed_pixels(prepared.records[2], prepared.settings.subsets[0])


def test_recorded_sizes_are_put_right_where_all_pixels_are_looked_at(images):
    file = describe(images, {"a": {"image_size": [64, 96]}, "b": {"image_size": [64, 64]}})
    (prepared,) = prepare_datasets([dataset(file, images)])
    assert [record.size for record in prepared.records] == [(96, 64), (64, 64)]
    assert len(prepared.notes) == 1
    assert "1 images have another size than is recorded, such as" in prepared.notes[0] and "64x96" in prepared.notes[0]


def test_missing_images_stop_or_are_left_out(images):
    file = describe(images, {"a": {}, "b.png": {}, "nowhere/c": {}})
    messages = mistakes_of(file, images)
    assert messages[0] == f'{images / "b.png"}: there is no such picture; did you mean "b.jpg"?'
    assert messages[1] == f"{images / 'nowhere' / 'c'}: there is no such picture"
    (prepared,) = prepare_datasets([dataset(file, images)], "skip")
    assert [Path(record.path).name for record in prepared.records] == ["a.png"]
    assert len(prepared.skipped) == 2


def test_ambiguous_stems_and_pictures_named_twice(images):
    write_image(images / "a.jpg", (64, 64), 0)
    file = describe(images, {"a": {}, "b": {}, "b.jpg": {}, "./sub/c": {}, "sub/c.png": {}, "a.png": {}})
    messages = mistakes_of(file, images)
    assert messages[0] == f'{file} "a": this may be a.jpg or a.png in "{images}"; write the extension'
    assert messages[1] == f'{file} "b.jpg": this is the same picture as {file} "b"; remove one of them'
    assert messages[2] == f'{file} "sub/c.png": this is the same picture as {file} "./sub/c"; remove one of them'


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ({"a": {}}, "meta.json", ["data.toml subset image_dir: this is missing, and 1 keys of", 'such as "a"', "--train_data_dir"]),
        ([], "meta.json", ["meta.json: a metadata file holds one object"]),
        ({}, "meta.json", ["meta.json: this metadata file names no picture"]),
        ({"a": "frog"}, "meta.json", ['meta.json "a": expected an object such as']),
        ({"a": {"captoin": "frog"}}, "meta.json", ['meta.json "a" captoin: unknown field; did you mean "caption"?']),
        ({"a": {"caption": 3}}, "meta.json", ['meta.json "a" caption: expected text, found 3']),
        ({"a": {"tags": ["x"]}}, "meta.json", ['meta.json "a" tags: expected text, found ["x"]']),
        ({"a": {"image_size": [3, 0]}}, "meta.json", ['meta.json "a" image_size: expected [width, height], found [3, 0]']),
        ({"a": {"image_size": "3x4"}}, "meta.json", ["image_size: expected [width, height]"]),
        ([{"caption": "x"}], "meta.jsonl", ["meta.jsonl, line 1: image_path is missing"]),
        ([{"image_path": "a"}, {"image_pth": "b"}], "meta.jsonl", ["meta.jsonl, line 2: image_path is missing", '"image_pth"']),
        ([{"image_path": "a"}, 3], "meta.jsonl", ["meta.jsonl, line 2: image_path is missing"]),
    ],
)
def test_mistakes_in_a_metadata_file(images, content, name, expected):
    file = describe(images, content, name)
    (message,) = mistakes_of(file, None)
    assert all(part in message for part in expected), message


def test_broken_files(images):
    (images / "meta.json").write_text('{"a": {"caption": "x"}\n"b": {}}', encoding="utf-8")
    assert "meta.json, line 2: not valid JSON" in mistakes_of(images / "meta.json", images)[0]
    (images / "meta.jsonl").write_text('{"image_path": "a"}\n{"image_path": \n', encoding="utf-8")
    assert "meta.jsonl, line 2: not valid JSON" in mistakes_of(images / "meta.jsonl", images)[0]
    (images / "twice.json").write_text('{"a": {}, "a": {}}', encoding="utf-8")
    assert '"a" stands twice' in mistakes_of(images / "twice.json", images)[0]


def test_all_mistakes_of_all_files_come_at_once(images):
    first = dataset(describe(images, {"a": {"caption": 1}, "b": {"tags": 2}}, "one.json"), images)
    second = dataset(describe(images, {"nowhere": {}}, "two.json"), images)
    with pytest.raises(UserError) as caught:
        prepare_datasets([first, second])
    told = "\n".join(caught.value.messages)
    assert all(text in told for text in ('one.json "a" caption', 'one.json "b" tags', "nowhere: there is no such picture"))


def test_a_described_dataset_trains_without_latents(images):
    file = describe(images, {"a": {"caption": "x"}, "b": {"caption": "y"}})
    (batch, *_) = batches_of(prepare_datasets([dataset(file, images)]))
    assert batch.images.shape == (1, 3, 64, 64) and batch.captions[0] in "xy"


def test_the_time_to_find_pictures_does_not_grow_with_its_square(images, monkeypatch):
    """However many keys a file has, each folder is listed once."""
    listed = []
    real = described.list_folder
    monkeypatch.setattr(described, "list_folder", lambda path, where: listed.append(path) or real(path, where))
    for number in range(20):
        write_image(images / f"{number}.png", (64, 64), number)
    file = describe(images, {**{str(number): {} for number in range(20)}, "a": {}, "sub/c": {}})
    (prepared,) = prepare_datasets([dataset(file, images)], latent_suffix="_sd")
    assert len(prepared.records) == 22
    assert sorted(listed) == [images, images / "sub"]


# --- latents without their image ---


def cached_then_removed(folder: Path, name: str = "a.png", alpha: bool = False, **options) -> tuple[DatasetSettings, dict]:
    """A dataset of one image whose latents were cached and that was removed then, and what its entry holds."""
    write_image(folder / name, (96, 64), 3, alpha)
    settings = dataset(describe(folder, {Path(name).stem: {"caption": "frog"}}), folder, **options)
    fill_cache(prepare_datasets([settings]), encode, cache_settings())
    (folder / name).unlink()
    (entry,) = folder.glob("*.npz")
    return settings, dict(np.load(entry))


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize("options", [{}, {"flip_aug": True}, {"alpha_mask": True, "alpha": True}])
def test_latents_stand_in_for_an_image_that_is_gone(tmp_path, on_disk, options):
    settings, arrays = cached_then_removed(tmp_path, **options)
    prepared = prepare_datasets([settings], latent_suffix="_sd")
    (record,) = prepared[0].records
    assert (record.size, record.caption, record.is_latents) == ((96, 64), "frog", True)
    assert "1 pictures are not there, only their latents" in prepared[0].notes[0]
    cache = fill_cache(prepared, encode, cache_settings(on_disk=on_disk))
    (batch,) = batches_of(prepared, cache)
    ending = "_flipped" if batch.flipped[0] else ""
    np.testing.assert_array_equal(batch.posterior.mean[0], arrays[f"latents_mean{ending}"])
    assert (batch.masks is not None) == bool(options.get("alpha_mask"))


def test_latents_of_other_tools_hold_a_sample_only(tmp_path):
    latents = np.arange(4 * 8 * 8, dtype=np.float32).reshape(4, 8, 8)
    np.savez(tmp_path / "a.npz", latents=latents, original_size=np.array([96, 64]), crop_ltrb=np.array([0, 0, 64, 64]))
    settings = dataset(describe(tmp_path, {"a": {}}), tmp_path)
    prepared = prepare_datasets([settings], latent_suffix="_sd")
    (batch,) = batches_of(prepared, fill_cache(prepared, encode, cache_settings()))
    np.testing.assert_array_equal(batch.posterior.mean[0], latents)
    assert batch.posterior.std.eq(0).all()


@pytest.mark.parametrize(
    ("change", "options", "resolution", "expected"),
    [
        ({"latents": None}, {}, (64, 64), "its latents {entry} lack latents"),
        ({"original_size": None}, {}, (64, 64), "lack original_size"),
        ({}, {"flip_aug": True}, (64, 64), "lack latents_flipped"),
        ({}, {"alpha_mask": True}, (64, 64), "lack alpha_mask"),
        ({}, {}, (128, 128), "these latents are for 64x64, not 128x128"),
        ({"latents": np.zeros(3)}, {}, (64, 64), "are no latents of one picture"),
    ],
)
def test_latents_that_cannot_stand_in(tmp_path, change, options, resolution, expected):
    settings, arrays = cached_then_removed(tmp_path)
    (entry,) = tmp_path.glob("*.npz")
    np.savez(entry, **{key: value for key, value in {**arrays, **change}.items() if value is not None})
    settings = dataset(settings.subsets[0].metadata_file, tmp_path, resolution, **options)
    with pytest.raises(UserError) as caught:
        prepare_datasets([settings], latent_suffix="_sd")
    assert expected.format(entry=entry) in caught.value.messages[0]


def test_torn_latents_and_latents_that_are_not_asked_for(tmp_path):
    settings, _ = cached_then_removed(tmp_path)
    (entry,) = tmp_path.glob("*.npz")
    with pytest.raises(UserError, match="only its latents .* cache_latents uses them"):
        prepare_datasets([settings])
    with pytest.raises(UserError, match="there is no such picture"):  # those of another family
        prepare_datasets([settings], latent_suffix="_sdxl")
    spoil_inside(entry, "latents_mean")
    with pytest.raises(UserError, match=r"its latents .* are damaged \(in latents_mean"):
        prepare_datasets([settings], latent_suffix="_sd")
    entry.write_bytes(entry.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        prepare_datasets([settings], latent_suffix="_sd")


def test_a_stem_does_not_match_the_latents_of_a_longer_one(tmp_path):
    write_image(tmp_path / "a.png", (64, 64), 0)
    np.savez(tmp_path / "ab_0096x0064_sd.npz", latents=np.zeros((4, 8, 8)), original_size=np.array([96, 64]))
    Image.new("RGB", (64, 64)).save(tmp_path / "ab.png")
    (prepared,) = prepare_datasets([dataset(describe(tmp_path, {"a": {}, "ab": {}}), tmp_path)], latent_suffix="_sd")
    assert [record.size for record in prepared.records] == [(64, 64), (64, 64)]
