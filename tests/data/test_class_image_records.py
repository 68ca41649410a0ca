"""Class pictures that are not there yet: their number, names, records, and what is refused."""
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from library.config.datasets import DatasetSettings, SubsetSettings
from library.data import class_images
from library.data.class_images import ClassImages, description, drawn_from, name_of
from library.data.records import PreparedDataset
from library.data.sources import prepare_datasets
from library.errors import UserError
from tests.data.tiny_datasets import write_image


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "frog").mkdir()
    for number in range(3):
        write_image(tmp_path / "frog" / f"{number}.png", (64, 64), number)
    return tmp_path / "frog"


def dataset(pictures: Path, number: int = 5, reg: Path | None = None, **options) -> DatasetSettings:
    own = {"class_prompt": "a frog", "class_tokens": "a frog", "num_class_images": number, "is_reg": True, "where": "reg"}
    subsets = (
        SubsetSettings(image_dir=pictures, where="frog"),
        SubsetSettings(image_dir=reg or pictures.parent / "reg", **{**own, **options.pop("subset", {})}),
    )
    return DatasetSettings(**{"resolution": (96, 64), "batch_size": 2, **options}, subsets=subsets)


def names(prepared: PreparedDataset) -> list[str]:
    return [Path(record.path).name for record in prepared.records if record.is_reg]


def drawn(
    folder: Path, *numbers: int, prompt: str = "a frog", suffix: str = ".png", size: tuple[int, int] = (96, 64)
) -> None:
    """Class pictures as they are after drawing."""
    folder.mkdir(exist_ok=True)
    info = PngImagePlugin.PngInfo()
    for key, text in description(prompt, Steps=30).items():
        info.add_text(key, text)
    for number in numbers:
        Image.new("RGB", size).save((folder / name_of(number)).with_suffix(suffix), pnginfo=info)


@pytest.mark.parametrize("bucketed", [False, True])
def test_records_of_pictures_that_are_to_come(pictures, bucketed):
    buckets = {"enable_bucket": True, "min_bucket_reso": 64, "max_bucket_reso": 128} if bucketed else {}
    settings = dataset(pictures, resolution=(128, 64), **buckets)
    (prepared,) = prepare_datasets([settings])
    future = prepared.records[3:]
    assert names(prepared) == [name_of(number) for number in range(1, 6)]
    assert {(record.size, record.bucket, record.resized) for record in future} == {((128, 64),) * 3}
    assert {(record.caption, record.has_caption, record.is_reg) for record in future} == {("a frog", False, True)}
    assert not (pictures.parent / "reg").exists()
    drawn(pictures.parent / "reg", *range(1, 6), size=(128, 64))
    (found,) = prepare_datasets([settings])
    assert found.records == prepared.records
    assert (len(prepared.class_images), found.class_images) == (1, [])


def test_pictures_that_are_there_count_and_their_numbers_are_not_used_again(pictures):
    reg = pictures.parent / "reg"
    drawn(reg, 2)
    drawn(reg, 4, suffix=".jpg")
    write_image(reg / "own.png", (64, 64), 7)
    (prepared,) = prepare_datasets([dataset(pictures, 6)])
    (wanted,) = prepared.class_images
    assert (wanted.missing, wanted.numbers) == ({1, 3, 5}, (1, 2, 3, 4, 5))
    assert (wanted.prompt, wanted.size, wanted.at_once, wanted.folder) == ("a frog", (96, 64), 2, reg)
    assert names(prepared) == [f"class_image_0000{end}" for end in ("1.png", "2.png", "3.png", "4.jpg", "5.png")] + ["own.png"]
    assert any('reg: 3 of 6 class pictures will be drawn from "a frog"' in note for note in prepared.notes)


@pytest.mark.parametrize("number", [0, 2, 3])
def test_enough_is_enough(pictures, number):
    drawn(pictures.parent / "reg", 1, 2, 3)
    (prepared,) = prepare_datasets([dataset(pictures, number)])
    assert (len(names(prepared)), prepared.class_images) == (3, [])


def test_a_batch_is_counted_with_what_is_there():
    wanted = ClassImages(Path(), "a frog", (64, 64), 3, tuple(range(1, 11)), frozenset({2, 7, 10}))
    assert wanted.groups == [(1, 2, 3), (7, 8, 9), (10,)]


def test_what_was_broken_off_goes_on_with_the_same_batches(pictures):
    def groups() -> list[tuple[int, ...]]:
        return prepare_datasets([dataset(pictures, 5)])[0].class_images[0].groups

    assert groups() == [(1, 2), (3, 4), (5,)]
    drawn(pictures.parent / "reg", 1, 4)
    assert groups() == [(1, 2), (3, 4), (5,)]
    drawn(pictures.parent / "reg", 2, 3)
    assert groups() == [(5,)]


def test_a_caption_file_that_waits_for_its_picture(pictures):
    reg = pictures.parent / "reg"
    reg.mkdir()
    (reg / "class_image_00002.caption").write_text("a green frog", encoding="utf-8")
    (prepared,) = prepare_datasets([dataset(pictures, 2)])
    assert [record.caption for record in prepared.records[3:]] == ["a frog", "a green frog"]


def test_captions_elsewhere_are_noticed_whatever_is_to_come(pictures):
    reg = pictures.parent / "reg"
    drawn(reg, 1)
    (reg / "class_image_00001.txt").write_text("a green frog", encoding="utf-8")
    settings = dataset(pictures, 9, subset={"caption_extension_given": False})
    with pytest.raises(UserError, match="1 of 1 have a .txt file"):
        prepare_datasets([settings])


def test_one_folder_for_two_sizes(pictures):
    """The pictures are drawn for the first dataset; the second one takes them as they will be."""
    first, second = dataset(pictures), dataset(pictures, resolution=(64, 128), reg=pictures / ".." / "reg")
    prepared = prepare_datasets([first, second])
    assert [one.class_images[0].size for one in prepared] == [(96, 64), (96, 64)]
    assert {(record.size, record.bucket) for record in prepared[1].records[3:]} == {((96, 64), (64, 128))}


def test_the_index_of_a_folder_knows_nothing_of_what_is_to_come(pictures):
    drawn(pictures.parent / "reg", 1)
    settings = dataset(pictures, 2, subset={"cache_info": True})
    (before,) = prepare_datasets([settings])
    text = (pictures.parent / "reg" / "metadata_cache.json").read_text(encoding="utf-8")
    assert "class_image_00001" in text and "class_image_00002" not in text
    drawn(pictures.parent / "reg", 2)
    (after,) = prepare_datasets([settings])
    assert after.records == before.records


def test_the_prompt_is_read_back(tmp_path):
    for number, prompt in enumerate(("a frog", "größer 蛙", "a frog, Steps: 3\nof two lines", "")):
        drawn(tmp_path, number, prompt=prompt)
        assert drawn_from(str(tmp_path / name_of(number))) == prompt
    write_image(tmp_path / "own.png", (64, 64), 1)
    assert drawn_from(str(tmp_path / "own.png")) is None


def refused(settings: DatasetSettings) -> str:
    with pytest.raises(UserError) as raised:
        prepare_datasets([settings])
    return "\n".join(raised.value.messages)


def test_another_prompt(pictures):
    reg = pictures.parent / "reg"
    drawn(reg, 1, 2, prompt="a toad")
    drawn(reg, 3)
    told = refused(dataset(pictures, 3))
    assert told.startswith('reg class_prompt: this is "a frog", but 2 pictures in its folder were drawn from another')
    assert f'{reg / name_of(1)} from "a toad"' in told
    assert prepare_datasets([dataset(pictures, 0)])  # nothing is claimed of what was drawn


def test_no_room(pictures, monkeypatch):
    monkeypatch.setattr(class_images, "free_bytes", lambda folder: 5 * 96 * 64 * 3 - 1)
    assert "reg num_class_images: there is no room for so many pictures" in refused(dataset(pictures))
    prepare_datasets([dataset(pictures, 4)])


def test_a_place_that_cannot_be_written(pictures, monkeypatch):
    monkeypatch.setattr(class_images.os, "access", lambda path, mode: path != pictures.parent)
    told = refused(dataset(pictures, reg=pictures.parent / "more" / "reg"))
    assert f"reg image_dir: class pictures cannot be drawn into {pictures.parent / 'more' / 'reg'}: {pictures.parent} cannot" in told


def test_pictures_of_another_kind_do_not_hide_the_lack(pictures):
    reg = pictures.parent / "reg"
    reg.mkdir()
    (reg / "a.gif").write_bytes(b"GIF89a")
    (prepared,) = prepare_datasets([dataset(pictures, 2)])
    assert len(names(prepared)) == 2
    assert "no images" in refused(dataset(pictures, 0))
