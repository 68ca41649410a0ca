"""From folders to records: what is found, what is refused, and that all mistakes come at once."""
from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from library.config.datasets import CaptionSettings, DatasetSettings, SubsetSettings
from library.data import scan
from library.data.sources import prepare_datasets
from library.errors import UserError


def save(path: Path, size: tuple[int, int] = (64, 64), caption: str | None = None, extension: str = ".caption") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)
    if caption is not None:
        path.with_suffix(extension).write_text(caption, encoding="utf-8")


def dataset(*folders: Path, **settings) -> DatasetSettings:
    """One subset per folder; settings of the subset or the dataset."""
    own = {field.name for field in dataclasses.fields(DatasetSettings)}
    shared = {key: settings.pop(key) for key in list(settings) if key in own and key != "subsets"}
    where = [f"data.toml subset {number}" for number in range(1, len(folders) + 1)]
    subsets = tuple(SubsetSettings(image_dir=folder, where=here, **settings) for folder, here in zip(folders, where, strict=True))
    return DatasetSettings(**{"resolution": (64, 64), "where": "data.toml dataset 1", **shared}, subsets=subsets)


def mistakes_of(*datasets: DatasetSettings, on_bad_image: str = "stop") -> list[str]:
    with pytest.raises(UserError) as caught:
        prepare_datasets(datasets, on_bad_image)
    return list(caught.value.messages)


def test_records(tmp_path):
    save(tmp_path / "b.png", (100, 50), "a frog")
    save(tmp_path / "a.JPG", (50, 100))
    (tmp_path / "notes.md").write_text("no image", encoding="utf-8")
    (tmp_path / "sub").mkdir()
    save(tmp_path / "sub" / "c.png")
    (tmp_path / "._a.JPG").write_bytes(b"what macOS leaves beside files")
    (prepared,) = prepare_datasets([dataset(tmp_path, num_repeats=3, class_tokens="sls frog")])
    first, second = prepared.records
    assert (first.path, first.size, first.caption, first.has_caption) == (str(tmp_path / "a.JPG"), (50, 100), "sls frog", False)
    assert (second.path, second.size, second.caption, second.has_caption) == (str(tmp_path / "b.png"), (100, 50), "a frog", True)
    assert (second.bucket, second.resized, second.num_repeats, second.is_reg) == ((64, 64), (128, 64), 3, False)
    assert prepared.entries() == [0, 0, 0, 1, 1, 1]


def test_images_are_sorted_by_name_and_subsets_kept_in_order(tmp_path):
    for name in ("z/10.png", "z/2.png", "a/b.png", "a/A.png"):
        save(tmp_path / name)
    (prepared,) = prepare_datasets([dataset(tmp_path / "z", tmp_path / "a")])
    assert [Path(record.path).name for record in prepared.records] == ["10.png", "2.png", "A.png", "b.png"]
    assert [record.subset for record in prepared.records] == [0, 0, 1, 1]


def test_sizes_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (200, 100)).save(tmp_path / "a.jpg", exif=exif)
    settings = dataset(tmp_path, enable_bucket=True, resolution=(512, 512), bucket_no_upscale=True)
    (record,) = prepare_datasets([settings])[0].records
    assert (record.size, record.bucket) == ((100, 200), (64, 192))


@pytest.mark.parametrize(
    ("content", "wildcard", "caption"),
    [
        (b"a frog", False, "a frog"),
        (b"\xef\xbb\xbfa frog\r\n", False, "a frog"),
        ("größer".encode(), False, "größer"),
        (b"  a frog \n second", False, "a frog"),
        (b"\n\na frog", False, "a frog"),
        (b"a\r\n\r\n b \rc\n", True, "a\nb\nc"),
        (b"", False, ""),
        (b" \n", True, ""),
    ],
)
def test_caption_files(tmp_path, content, wildcard, caption):
    save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(content)
    settings = dataset(tmp_path, caption_extension=".txt", caption=CaptionSettings(enable_wildcard=wildcard))
    (record,) = prepare_datasets([settings])[0].records
    assert (record.caption, record.has_caption) == (caption, True)


def test_caption_lookup(tmp_path):
    for name in ("a.png", "b.1.png", "photo_1_2_3_4.png", "photo_5_6_7_8.png", "none_1_2.png"):
        save(tmp_path / name)
    texts = {"a.TXT": "capital", "b.1.txt": "dots", "photo.txt": "photo", "photo_5_6_7_8.txt": "own", "none.txt": "no"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (prepared,) = prepare_datasets([dataset(tmp_path, caption_extension=".txt")])
    captions = {Path(record.path).stem: record.caption for record in prepared.records}
    assert captions == {"a": "capital", "b.1": "dots", "photo_1_2_3_4": "photo", "photo_5_6_7_8": "own", "none_1_2": ""}


@pytest.mark.parametrize("content", [b"\xff\xfea\x00", b"caf\xe9", b"a\x00b\x00"])
def test_captions_that_are_not_utf8(tmp_path, content):
    save(tmp_path / "a.png")
    (tmp_path / "a.caption").write_bytes(content)
    (message,) = mistakes_of(dataset(tmp_path))
    assert str(tmp_path / "a.caption") in message and "UTF-8" in message


def test_captions_under_another_extension(tmp_path):
    for number in range(3):
        save(tmp_path / f"{number}.png", caption="x" if number else None, extension=".txt")
    settings = dataset(tmp_path, class_tokens="sls frog", caption_extension_given=False)
    (message,) = mistakes_of(settings)
    assert "2 of 3" in message and "--caption_extension .txt" in message
    assert '--caption_extension .caption to train on the class tokens "sls frog"' in message
    assert prepare_datasets([dataset(tmp_path, class_tokens="sls frog", caption_extension_given=True)])
    (tmp_path / "1.txt").unlink()
    assert prepare_datasets([settings])  # a third is not more than half
    save(tmp_path / "1.png", caption="x", extension=".txt")
    (tmp_path / "2.caption").write_text("x", encoding="utf-8")
    assert prepare_datasets([settings])  # the default extension finds one


def test_bad_images_stop_or_are_left_out(tmp_path):
    save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"nothing")
    save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:-200])
    messages = mistakes_of(dataset(tmp_path))
    assert str(tmp_path / "bad.png") in messages[0] and str(tmp_path / "cut.jpg") in messages[1]
    assert "--on_bad_image skip" in messages[2] and len(messages) == 3
    (prepared,) = prepare_datasets([dataset(tmp_path)], "skip")
    assert [Path(record.path).name for record in prepared.records] == ["good.png"]
    assert [Path(path).name for path, _ in prepared.skipped] == ["bad.png", "cut.jpg"]


@pytest.mark.parametrize("limit", [0, 10**9])
def test_corrupt_pixels_are_found_at_once_in_small_sets_only(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(scan, "FULL_CHECK_PIXELS", limit)
    save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[5000:5200] = bytes(200)
    (tmp_path / "a.png").write_bytes(content)
    save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-200])
    found = {Path(path).name for path in scan.scan_images([str(tmp_path / "a.png"), str(tmp_path / "cut.png")]).bad}
    assert found == ({"a.png", "cut.png"} if limit else {"cut.png"})


def test_if_all_images_are_bad_skipping_them_does_not_help(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"nothing")
    messages = mistakes_of(dataset(tmp_path), on_bad_image="skip")
    assert "data.toml dataset 1: there is no image to train on" in messages[0]
    assert str(tmp_path / "bad.png") in messages[1]


def test_only_regularisation_images_are_left(tmp_path):
    save(tmp_path / "a.png")
    assert "no image to train on" in mistakes_of(dataset(tmp_path, is_reg=True))[0]


def test_empty_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "parent" / "child").mkdir(parents=True)
    (tmp_path / "gifs").mkdir()
    (tmp_path / "gifs" / "a.gif").write_bytes(b"GIF89a")
    messages = mistakes_of(dataset(tmp_path / "empty", tmp_path / "parent", tmp_path / "gifs", tmp_path / "nowhere"))
    assert ["data.toml subset" in message for message in messages] == [True] * 4
    assert "holds no images" in messages[0]
    assert "sub-folders are not searched" in messages[1]
    assert "1 .gif file left out" in messages[2]
    assert "cannot be read" in messages[3]


def test_two_images_of_one_name(tmp_path):
    for name in ("a.png", "a.jpg.png", "a.jpg", "b.png"):
        save(tmp_path / name)
    (message,) = mistakes_of(dataset(tmp_path))
    assert '"a.jpg" and "a.png"' in message


def test_all_mistakes_come_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.caption").write_bytes(b"\xff")
    (tmp_path / "images" / "b.png").write_bytes(b"")
    messages = "\n".join(mistakes_of(dataset(tmp_path / "empty"), dataset(tmp_path / "images")))
    assert all(text in messages for text in ("empty", "a.caption", "b.png"))


def test_long_lists_are_shortened(tmp_path):
    for number in range(30):
        (tmp_path / f"{number:02}.png").write_bytes(b"")
    messages = mistakes_of(dataset(tmp_path))
    assert len(messages) == 22 and messages[20] == "... and 10 more bad images"


def test_notes(tmp_path):
    save(tmp_path / "a.png", caption="one\ntwo")
    (tmp_path / "b.gif").write_bytes(b"GIF89a")
    (prepared,) = prepare_datasets([dataset(tmp_path)])
    assert any("1 .gif file" in note for note in prepared.notes)
    assert any("only the first is used" in note for note in prepared.notes)


def test_a_file_that_vanishes_after_listing_is_a_bad_image(tmp_path):
    save(tmp_path / "a.png")
    gone = str(tmp_path / "gone.png")
    found = scan.scan_images([str(tmp_path / "a.png"), gone])
    assert list(found.sizes) == [str(tmp_path / "a.png")]
    assert found.bad[gone].startswith("is gone")


def test_the_same_folder_in_two_datasets_is_read_once(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    read = []
    monkeypatch.setattr(scan, "read_header", lambda path, original=scan.read_header: read.append(path) or original(path))
    first, second = prepare_datasets([dataset(tmp_path), dataset(tmp_path, resolution=(128, 128))])
    assert len(read) == 1
    assert (first.records[0].bucket, second.records[0].bucket) == ((64, 64), (128, 128))


def test_a_record_takes_less_than_a_kilobyte(tmp_path):
    count = 300
    for number in range(count):
        Image.new("RGB", (64 + number % 7, 64)).save(tmp_path / f"a_rather_long_name_of_a_picture_{number:06}.bmp")
        (tmp_path / f"a_rather_long_name_of_a_picture_{number:06}.caption").write_text(f"{number:08}", encoding="utf-8")
    prepare_datasets([dataset(tmp_path, enable_bucket=True)])  # what is built once
    tracemalloc.start()
    prepared = prepare_datasets([dataset(tmp_path, enable_bucket=True)])
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(prepared[0].records) == count
    assert held / count < 1024


def test_extensions_in_any_letter_case_are_listed(tmp_path):
    names = ["0.png", "1.PNG", "2.Png", "3.JPG", "4.Jpeg", "5.WebP"]
    for name in names:
        save(tmp_path / name)
    (prepared,) = prepare_datasets([dataset(tmp_path)])
    assert [Path(record.path).name for record in prepared.records] == names
