"""Every key of every kind of dataset, at every level at which it may stand, from files and flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.datasets.keys import CAPTIONED, DATASET, DESCRIBED, GENERAL, KEYS, MASKED, SUBSET
from library.config.settings import Settings

Load = Callable[..., Settings]
Read = Callable[..., list[DatasetSettings]]
Mistakes = Callable[..., list[str]]

SOURCES = {
    CAPTIONED: {"image_dir": "frog"},
    DESCRIBED: {"metadata_file": "frogs.json"},
    MASKED: {"image_dir": "frog", "conditioning_data_dir": "masks"},
}
# A value other than the default; where there are two flags to give it, the text that follows the flag.
VALUES: dict[str, Any] = {
    "image_dir": "toad", "metadata_file": "toads.jsonl", "conditioning_data_dir": "pond", "is_reg": True,
    "class_tokens": "sls frog", "caption_extension": ".tags", "cache_info": True, "batch_size": 3, "resolution": [640, 512],
    "enable_bucket": True, "min_bucket_reso": 384, "max_bucket_reso": 2048, "bucket_reso_steps": 128, "bucket_no_upscale": True,
    "network_multiplier": 0.5, "num_repeats": 4, "shuffle_caption": True, "caption_separator": ";", "keep_tokens": 2,
    "keep_tokens_separator": "|||", "secondary_separator": ";;;", "enable_wildcard": True, "caption_prefix": "a",
    "caption_suffix": "z", "caption_dropout_rate": 0.25, "caption_dropout_every_n_epochs": 3, "caption_tag_dropout_rate": 0.5,
    "token_warmup_min": 2, "token_warmup_step": 0.5, "color_aug": True, "flip_aug": True, "random_crop": True,
    "face_crop_aug_range": [2.0, 4.0], "alpha_mask": True, "resize_interpolation": "area", "validation_split": 0.5,
    "num_class_images": 9, "class_prompt": "a frog", "validation_seed": 7, "custom_attributes": {"score": {"a": [1, 2.5, "b"]}, "on": True},
}  # fmt: skip
ALONE = {"face_crop_aug_range", "is_reg", "num_class_images", "class_prompt"}  # these exclude others, or need them


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("frog", "toad", "masks", "pond"):
        (tmp_path / name).mkdir()
    for name in ("frogs.json", "toads.jsonl"):
        (tmp_path / name).write_text("{}", encoding="utf-8")


@pytest.fixture
def read(load: Load, tmp_path: Path) -> Read:
    """The datasets of a file with these tables, written as JSON."""

    def read_tables(general: dict, dataset: dict, *subsets: dict, flags: tuple[object, ...] = ("--masked_loss",)):
        content = {"general": general, "datasets": [{"resolution": 512, **dataset, "subsets": list(subsets)}]}
        (tmp_path / "data.json").write_text(json.dumps(content), encoding="utf-8")
        return load_dataset_settings(load("--dataset_config", "data.json", *flags))

    return read_tables


def flags_of(kind: str) -> tuple[str, ...]:
    return ("--masked_loss",) if kind == MASKED else ()


def found_in(dataset: DatasetSettings, name: str) -> Any:
    """The value of a key in the settings of its first subset, as a file would have it."""
    subset = dataset.subsets[0]
    holder = next(part for part in (subset, subset.caption, dataset) if hasattr(part, name))
    value = getattr(holder, name)
    return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value


def test_every_key_has_a_value_to_try() -> None:
    assert VALUES.keys() == KEYS.keys()


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("level", [GENERAL, DATASET, SUBSET])
def test_keys_of_a_level_reach_the_settings(read: Read, kind: str, level: str) -> None:
    names = [key.name for key in KEYS.values() if kind in key.kinds and level in key.levels and key.name not in ALONE]
    written = {name: VALUES[name] for name in names}
    dataset = {"resolution": VALUES["resolution"]}  # in [general] the fixture's would win
    tables = ((GENERAL, {}), (DATASET, dataset), (SUBSET, {}))
    general, dataset, subset = (table | written if level == here else table for here, table in tables)
    (settings,) = read(general, dataset, {**SOURCES[kind], **subset}, flags=flags_of(kind))
    assert {name: found_in(settings, name) for name in names} == written


def test_keys_that_exclude_others_reach_the_settings(read: Read) -> None:
    for place in range(3):
        general, dataset, subset = ({"face_crop_aug_range": [1, 3]} if place == here else {} for here in range(3))
        (settings,) = read(general, dataset, {"image_dir": "frog", **subset}, flags=())
        assert settings.subsets[0].face_crop_aug_range == (1.0, 3.0)
    (settings,) = read({}, {}, {"image_dir": "frog"}, {"image_dir": "toad", "is_reg": True}, flags=())
    assert [subset.is_reg for subset in settings.subsets] == [False, True]


def test_flags_stand_in(read: Read) -> None:
    flags: list[object] = []
    keys = [key for key in KEYS.values() if key.twin and key.name not in ALONE]
    for key in keys:
        value = VALUES[key.name]
        text = [] if value is True else [",".join(map(str, value)) if isinstance(value, list) else str(value)]
        flags += [f"--{key.twin}", *text]
    content = read({}, {"resolution": VALUES["resolution"]}, {"image_dir": "frog"}, flags=tuple(flags))
    assert {key.name: found_in(content[0], key.name) for key in keys} == {key.name: VALUES[key.name] for key in keys}
    silent = {key.name: key.option.default for key in keys if key.option.default is not None}
    in_subset = {name: value for name, value in silent.items() if SUBSET in KEYS[name].levels}
    above = {name: value for name, value in silent.items() if name not in in_subset}
    (settings,) = read({}, above, {"image_dir": "frog", **in_subset}, flags=tuple(flags))
    assert {name: found_in(settings, name) for name in silent} == silent


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("level", [DATASET, SUBSET])
def test_keys_of_other_kinds_are_mistakes(read: Read, mistakes: Mistakes, kind: str, level: str) -> None:
    deciding = ("metadata_file", "conditioning_data_dir")
    names = [key.name for key in KEYS.values() if kind not in key.kinds and level in key.levels and key.name not in deciding]
    if not names:
        return
    dataset, subset = ({name: VALUES[name] for name in names} if level == here else {} for here in (DATASET, SUBSET))
    messages = mistakes(lambda: read({}, dataset, {**SOURCES[kind], **subset}, flags=flags_of(kind)))
    place = f"data.json [[datasets]] 1{' [[datasets.subsets]] 1' if level == SUBSET else ''}"
    assert [message.partition(";")[0] for message in messages] == [f"{place} {name}: {kind} do not use this" for name in names]


@pytest.mark.parametrize("kind", [DESCRIBED, MASKED])
def test_general_may_hold_keys_of_other_kinds(read: Read, kind: str) -> None:
    general = {"class_tokens": "frog", "caption_extension": ".txt", "cache_info": True}
    (dataset,) = read(general, {}, SOURCES[kind], flags=(*flags_of(kind), "--alpha_mask"))
    subset = dataset.subsets[0]
    assert subset.class_tokens is None
    assert subset.alpha_mask == (kind == DESCRIBED)  # a mask wins over transparency
    assert (subset.caption_extension, subset.cache_info) == ((".txt", True) if kind == MASKED else (".caption", False))


def test_whether_anybody_chose_the_caption_extension(read: Read) -> None:
    for flags, general, chosen in (((), {}, False), (("--caption_extension", ".caption"), {}, True),
                                   ((), {"caption_extension": ".caption"}, True)):  # fmt: skip
        (dataset,) = read(general, {}, {"image_dir": "frog"}, flags=flags)
        assert dataset.subsets[0].caption_extension_given == chosen


def test_kinds_differ_between_datasets(load: Load, tmp_path: Path) -> None:
    numbered = enumerate(SOURCES.values(), start=1)
    datasets = [{"resolution": 64 * number, "batch_size": number, "subsets": [table]} for number, table in numbered]
    (tmp_path / "data.json").write_text(json.dumps({"datasets": datasets}), encoding="utf-8")
    plain, described, masked = load_dataset_settings(load("--dataset_config", "data.json", "--masked_loss"))
    assert [dataset.resolution for dataset in (plain, described, masked)] == [(64, 64), (128, 128), (192, 192)]
    assert [dataset.batch_size for dataset in (plain, described, masked)] == [1, 2, 3]
    assert plain.subsets[0].name == masked.subsets[0].name == "frog"
    assert described.subsets[0].name == "frogs.json"


HERE = "data.json [[datasets]] 1 [[datasets.subsets]]"


@pytest.mark.parametrize(
    ("subsets", "flags", "expected"),
    [
        ([{"image_dir": "frog"}, SOURCES[DESCRIBED]], (), [f"{HERE} 1 metadata_file: this key is missing: all subsets"]),
        ([SOURCES[MASKED], {"image_dir": "toad"}], ("--masked_loss",), [f"{HERE} 2 conditioning_data_dir: this key is missing"]),
        (
            [SOURCES[MASKED], SOURCES[DESCRIBED]], ("--masked_loss",),
            [f"{HERE} 1 conditioning_data_dir: {DESCRIBED} do not use this", f"{HERE} 1 metadata_file: this key is missing"],
        ),
        ([{"conditioning_data_dir": "masks"}], ("--masked_loss",), [f"{HERE} 1 image_dir: this key is missing"]),
        ([SOURCES[MASKED]], (), ["data.json [[datasets]] 1: conditioning_data_dir is used with masked_loss only"]),
        ([{"image_dir": "frog"}], ("--masked_loss",), ["--masked_loss: no picture has a mask"]),
        ([{**SOURCES[MASKED], "conditioning_data_dir": "mask"}], ("--masked_loss",), [f"{HERE} 1 conditioning_data_dir: there is no folder"]),
        ([{**SOURCES[MASKED], "conditioning_data_dir": "./frog"}], ("--masked_loss",), ["this is the folder of the pictures"]),
        ([{"metadata_file": "frog.json"}], (), [f'{HERE} 1 metadata_file: there is no file', 'did you mean "frogs.json"']),
        ([{"metadata_file": "frog"}], (), [f"{HERE} 1 metadata_file: frog is a folder; name the file"]),
        ([{"metadata_file": "frogs.json", "image_dir": "frogs"}], (), [f"{HERE} 1 image_dir: there is no folder"]),
        ([{"image_dir": "frog"}, {"image_dir": "toad", "is_reg": True, "validation_split": 0.5}], (), ["are not held out"]),
        ([{"image_dir": "frog", "metadata": "frogs.json"}], (), [f"{HERE} 1 metadata: unknown key", 'did you mean "metadata_file"']),
    ],
)  # fmt: skip
def test_mistakes_about_kinds(read: Read, mistakes: Mistakes, subsets: list[dict], flags: tuple, expected: list[str]) -> None:
    messages = mistakes(lambda: read({}, {}, *subsets, flags=flags))
    assert all(any(part in message for message in messages) for part in expected), messages


def test_a_metadata_file_of_another_type(read: Read, mistakes: Mistakes, tmp_path: Path) -> None:
    (tmp_path / "frogs.csv").write_text("", encoding="utf-8")
    (message,) = mistakes(lambda: read({}, {}, {"metadata_file": "frogs.csv"}))
    assert 'must end in .json or .jsonl, this ends in ".csv"' in message


def test_the_split_of_general_is_not_meant_for_regularisation(read: Read) -> None:
    (dataset,) = read({"validation_split": 0.5}, {}, {"image_dir": "frog"}, {"image_dir": "toad", "is_reg": True}, flags=())
    assert [subset.validation_split for subset in dataset.subsets] == [0.5, 0.0]


def test_the_same_source_twice(read: Read) -> None:
    (dataset,) = read({}, {}, SOURCES[DESCRIBED], {"metadata_file": "./frogs.json", "num_repeats": 3}, flags=())
    assert len(dataset.subsets) == 1
    assert "metadata_file: frogs.json is left out here" in dataset.notes[0]
    (dataset,) = read({}, {}, SOURCES[MASKED], {**SOURCES[MASKED], "conditioning_data_dir": "toad"})
    assert len(dataset.subsets) == 2


# --- without a dataset file ---


def test_metadata_by_flags(load: Load) -> None:
    flags = ("--in_json", "frogs.json", "--train_data_dir", "frog", "--dataset_repeats", 3, "--resolution", 64, "--reg_data_dir", "toad")
    (dataset,) = load_dataset_settings(load(*flags))
    (subset,) = dataset.subsets
    assert (subset.metadata_file, subset.image_dir, subset.num_repeats) == (Path("frogs.json"), Path("frog"), 3)
    assert subset.class_tokens is None
    assert dataset.notes == ("--reg_data_dir is not used: subsets with metadata_file have no regularisation pictures",)
    (dataset,) = load_dataset_settings(load("--in_json", "frogs.json", "--resolution", 64))
    assert dataset.subsets[0].image_dir is None


def test_masks_by_flags(load: Load) -> None:
    flags = ("--masked_loss", "--conditioning_data_dir", "masks", "--train_data_dir", "frog", "--resolution", 64, "--alpha_mask")
    (dataset,) = load_dataset_settings(load(*flags))
    (subset,) = dataset.subsets
    assert (subset.conditioning_data_dir, subset.image_dir, subset.alpha_mask) == (Path("masks"), Path("frog"), False)


def test_transparency_is_a_mask_too(load: Load, tmp_path: Path) -> None:
    """Masked_loss with folder names."""
    (tmp_path / "data" / "3_frog").mkdir(parents=True)
    flags = ("--masked_loss", "--alpha_mask", "--train_data_dir", "data", "--resolution", 64)
    (dataset,) = load_dataset_settings(load(*flags))
    assert dataset.subsets[0].alpha_mask


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("--in_json nowhere.json --resolution 64", "--in_json metadata_file: there is no file 'nowhere.json'"),
        ("--in_json frogs.json --train_data_dir frogs --resolution 64", "there is no folder 'frogs'"),
        ("--in_json frogs.json", "--in_json: resolution is missing; give --resolution 512"),
        ("--masked_loss --conditioning_data_dir masks --resolution 64", "give --train_data_dir, the folder"),
    ],
)
def test_mistakes_in_flags(load: Load, mistakes: Mistakes, flags: str, expected: str) -> None:
    (message,) = mistakes(load_dataset_settings, load(*flags.split()))
    assert expected in message


def test_a_dataset_file_replaces_all_flags_about_sources(read: Read) -> None:
    flags = ("--in_json", "nowhere.json", "--train_data_dir", "x", "--conditioning_data_dir", "y")
    (dataset,) = read({}, {}, {"image_dir": "frog"}, flags=flags)
    assert [note.split(" ")[0] for note in dataset.notes] == ["--train_data_dir", "--in_json", "--conditioning_data_dir"]
