"""Dataset files: precedence of tables and flags, and what is said about mistakes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.settings import Settings

Load = Callable[..., Settings]
Write = Callable[[str, str], Path]
Mistakes = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs in a folder that has the folders of pictures `frog`, `toad` and `newt`."""
    monkeypatch.chdir(tmp_path)
    for name in ("frog", "toad", "newt"):
        (tmp_path / name).mkdir()


@pytest.fixture
def datasets(load: Load, tmp_path: Path) -> Callable[..., list[DatasetSettings]]:
    def read(text: str, *argv: object) -> list[DatasetSettings]:
        (tmp_path / "data.toml").write_text(text, encoding="utf-8")
        return load_dataset_settings(load("--dataset_config", "data.toml", *argv))

    return read


FROG = "[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'frog'\n"


def with_dataset(lines: str) -> str:
    return FROG.replace("[[datasets.subsets]]", f"{lines}\n[[datasets.subsets]]")


def test_least_dataset_has_every_default(datasets: Callable[..., list[DatasetSettings]]) -> None:
    (dataset,) = datasets(FROG)
    (subset,) = dataset.subsets
    assert dataset.resolution == (512, 512)
    assert (dataset.batch_size, dataset.enable_bucket, dataset.min_bucket_reso, dataset.max_bucket_reso) == (1, False, 256, 1024)
    assert subset.image_dir == Path("frog")
    assert (subset.num_repeats, subset.is_reg, subset.class_tokens, subset.caption_extension) == (1, False, None, ".caption")
    assert (subset.caption.caption_separator, subset.caption.keep_tokens, subset.custom_attributes) == (",", 0, {})
    assert dataset.where == "data.toml [[datasets]] 1"
    assert subset.where == "data.toml [[datasets]] 1 [[datasets.subsets]] 1"


LEVELS = ["flag", "general", "dataset", "subset"]


@pytest.mark.parametrize("deciding", range(4))
@pytest.mark.parametrize(
    ("key", "flag", "values"),
    [
        ("keep_tokens", "--keep_tokens", [1, 2, 3, 4]),
        ("keep_tokens", "--keep_tokens", [5, 0, 0, 0]),
        ("caption_prefix", "--caption_prefix", ["a", "b", "c", ""]),
        ("caption_prefix", "--caption_prefix", ["a", "", "", ""]),
        ("caption_dropout_rate", "--caption_dropout_rate", [0.5, 0.0, 0.25, 1.0]),
    ],
)
def test_the_innermost_table_decides(
    datasets: Callable[..., list[DatasetSettings]], deciding: int, key: str, flag: str, values: list[Any]
) -> None:
    given = values[: deciding + 1]
    lines = [f"{key} = {json.dumps(value)}\n" for value in given[1:]] + [""] * 3
    text = f"[general]\n{lines[0]}[[datasets]]\nresolution = 512\n{lines[1]}[[datasets.subsets]]\nimage_dir = 'frog'\n{lines[2]}"
    (dataset,) = datasets(text, flag, given[0])
    assert getattr(dataset.subsets[0].caption, key) == given[-1]


def test_false_in_the_file_overrides_a_switch(datasets: Callable[..., list[DatasetSettings]]) -> None:
    switches = ("--flip_aug", "--shuffle_caption", "--enable_bucket", "--alpha_mask")
    text = with_dataset("enable_bucket = false\nflip_aug = false") + "shuffle_caption = false\n"
    (dataset,) = datasets(text, *switches)
    assert not dataset.enable_bucket
    assert not dataset.subsets[0].flip_aug
    assert not dataset.subsets[0].caption.shuffle_caption
    assert dataset.subsets[0].alpha_mask


def test_flags_fill_what_the_file_leaves_out(datasets: Callable[..., list[DatasetSettings]]) -> None:
    text = "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'frog'\n"
    (dataset,) = datasets(text, "--resolution", "768,512", "--train_batch_size", 3, "--caption_extension", "txt", "--color_aug")
    assert (dataset.resolution, dataset.batch_size) == ((768, 512), 3)
    assert (dataset.subsets[0].caption_extension, dataset.subsets[0].color_aug) == (".txt", True)


def test_general_flows_into_every_dataset(datasets: Callable[..., list[DatasetSettings]]) -> None:
    text = "[general]\nbatch_size = 4\nnum_repeats = 7\nresize_interpolation = 'box'\n"
    text += FROG + FROG.replace("512", "[768, 512]").replace("frog", "toad") + "num_repeats = 2\nresize_interpolation = 'area'\n"
    first, second = datasets(text)
    assert (first.batch_size, second.batch_size) == (4, 4)
    assert (first.resolution, second.resolution) == ((512, 512), (768, 512))
    assert (first.subsets[0].num_repeats, second.subsets[0].num_repeats) == (7, 2)
    assert (first.subsets[0].resize_interpolation, second.subsets[0].resize_interpolation) == ("box", "area")
    assert second.resize_interpolation == "box"


def test_whole_numbers_are_numbers(datasets: Callable[..., list[DatasetSettings]]) -> None:
    (dataset,) = datasets(FROG + "face_crop_aug_range = [1, 3]\ncaption_dropout_rate = 1\ntoken_warmup_step = 10\n")
    assert dataset.subsets[0].face_crop_aug_range == (1.0, 3.0)
    assert dataset.subsets[0].caption.caption_dropout_rate == 1.0
    assert dataset.subsets[0].caption.token_warmup_step == 10.0


def test_custom_attributes_are_passed_on(datasets: Callable[..., list[DatasetSettings]]) -> None:
    (dataset,) = datasets(FROG + "custom_attributes = { score = 3, tags = ['a'] }\n")
    assert dataset.subsets[0].custom_attributes == {"score": 3, "tags": ["a"]}


def test_json_says_the_same(load: Load, write: Write, datasets: Callable[..., list[DatasetSettings]]) -> None:
    content = {"general": {"batch_size": 2}, "datasets": [{"resolution": 512, "subsets": [{"image_dir": "frog"}]}]}
    write("data.json", json.dumps(content))
    (from_json,) = load_dataset_settings(load("--dataset_config", "data.json"))
    (from_toml,) = datasets("[general]\nbatch_size = 2\n" + FROG)
    assert (from_json.batch_size, from_json.resolution) == (from_toml.batch_size, from_toml.resolution)
    assert from_json.subsets[0].image_dir == from_toml.subsets[0].image_dir


def test_bucket_limits_are_put_on_the_grid(datasets: Callable[..., list[DatasetSettings]]) -> None:
    (dataset,) = datasets(with_dataset("enable_bucket = true\nmin_bucket_reso = 300"), "--max_bucket_reso", "1000")
    assert (dataset.min_bucket_reso, dataset.max_bucket_reso) == (256, 1024)
    assert dataset.notes == (
        "data.toml [[datasets]] 1 min_bucket_reso: 300 is not a multiple of bucket_reso_steps (64); 256 is used",
        "data.toml [[datasets]] 1, --max_bucket_reso: 1000 is not a multiple of bucket_reso_steps (64); 1024 is used",
    )
    (plain,) = datasets(with_dataset("min_bucket_reso = 300"))
    assert plain.notes == ()


def test_limits_that_buckets_made_to_measure_do_not_have(datasets: Callable[..., list[DatasetSettings]]) -> None:
    written = "enable_bucket = true\nbucket_no_upscale = true\n"
    (dataset,) = datasets(with_dataset(written + "min_bucket_reso = 300"))
    expected = "data.toml [[datasets]] 1 min_bucket_reso: this is not used, for bucket_no_upscale makes buckets to measure"
    assert dataset.notes == (expected,)
    (plain,) = datasets(with_dataset(written))
    assert plain.notes == ()


def test_a_folder_is_read_once_in_a_dataset(datasets: Callable[..., list[DatasetSettings]]) -> None:
    again = "[[datasets.subsets]]\nimage_dir = './frog/'\nnum_repeats = 3\n"
    unused = "[[datasets.subsets]]\nimage_dir = 'toad'\nnum_repeats = 0\n"
    first, second = datasets(FROG + again + unused + FROG)
    assert [subset.image_dir for subset in first.subsets] == [Path("frog")]
    assert "is left out here, data.toml [[datasets]] 1 [[datasets.subsets]] 1 reads it already" in first.notes[0]
    assert first.notes[1] == "data.toml [[datasets]] 1 [[datasets.subsets]] 3 num_repeats: 0 leaves this subset out"
    assert [subset.image_dir for subset in second.subsets] == [Path("frog")]


def test_folders_of_flags_are_not_used(datasets: Callable[..., list[DatasetSettings]]) -> None:
    (dataset,) = datasets(FROG, "--train_data_dir", "nowhere", "--reg_data_dir", "toad")
    assert dataset.notes == (
        "--train_data_dir is not used: data.toml says where the pictures are",
        "--reg_data_dir is not used: data.toml says where the pictures are",
    )


HERE = "data.toml [[datasets]] 1"
SUBSET_HERE = f"{HERE} [[datasets.subsets]] 1"
MISTAKES = [
    (FROG + "num_repeat = 2\n", [f"{SUBSET_HERE} num_repeat: unknown key", 'did you mean "num_repeats"']),
    (FROG + "caption_ext = '.txt'\n", ['did you mean "caption_extension"']),
    (with_dataset("resolutin = 1"), [f"{HERE} resolutin: unknown key", 'did you mean "resolution"']),
    ("[general]\nbatch_sise = 1\n" + FROG, ["data.toml [general] batch_sise: unknown key", 'did you mean "batch_size"']),
    (FROG + "num_repeats = '2'\n", [f"{SUBSET_HERE} num_repeats: expected a whole number", "write num_repeats = 2"]),
    (FROG + "num_repeats = true\n", ["expected a whole number, found true"]),
    (FROG + "num_repeats = 2.0\n", ["write num_repeats = 2"]),
    (FROG + "keep_tokens = -1\n", ["keep_tokens: -1 is too small"]),
    (FROG + "is_reg = 'false'\n", ["is_reg: expected true or false", "write is_reg = false"]),
    (FROG + "caption_dropout_rate = 2\n", ["at most 1"]),
    (FROG + "custom_attributes = 3\n", ["expected a table, found 3"]),
    (FROG + "resize_interpolation = 'lanczo'\n", ['did you mean "lanczos"']),
    (FROG + "face_crop_aug_range = '1,3'\n", ["face_crop_aug_range", "write face_crop_aug_range = [1,3]"]),
    (FROG + "face_crop_aug_range = [3.0, 1.0]\n", ["is no range"]),
    (with_dataset("enable_bucket = true") + "face_crop_aug_range = [1.0, 3.0]\n", ["works without enable_bucket only"]),
    (FROG + "caption_extension = ''\n", [f"{SUBSET_HERE} caption_extension: this is empty"]),
    (FROG.replace("512", "'512,768'"), [f"{HERE} resolution: expected numbers without quotes", "write resolution = [512,768]"]),
    (FROG.replace("512", "500"), [f"{HERE} resolution: 500 is not a positive multiple of 8; write 512"]),
    (FROG.replace("512", "-512"), ["resolution: -512"]),
    (FROG.replace("512", "[512, 0]"), ["resolution: 0"]),
    (FROG.replace("resolution = 512\n", ""), [f"{HERE}: resolution is missing", "--resolution 512"]),
    (FROG + "resolution = 512\n", ["resolution: this key belongs in [[datasets]] or [general], not in [[datasets.subsets]]"]),
    (with_dataset("is_reg = true"), [f"{HERE} is_reg: this key belongs in [[datasets.subsets]], not in [[datasets]]"]),
    ("[general]\nimage_dir = 'frog'\n" + FROG, ["[general] image_dir: this key belongs in [[datasets.subsets]]"]),
    (with_dataset("alpha_mask = true"), ["alpha_mask: this key belongs in [[datasets.subsets]]"]),
    (with_dataset("train_batch_size = 2"), ['in a dataset file this key is called "batch_size"']),
    (with_dataset("learning_rate = 1.0"), ["an option of the whole run", "--learning_rate"]),
    (FROG + "caption_extention = '.txt'\n", ['spelt "caption_extension"']),
    (with_dataset("validation_split = 1.5"), ["validation_split: 1.5 is too large: at most 1"]),
    (with_dataset("network_multiplier = 0"), [f"{HERE} network_multiplier: at 0 the network learns nothing"]),
    (with_dataset("in_json = 'meta.json'"), ['in a dataset file this key is called "metadata_file"']),
    (FROG + "dataset_repeats = 3\n", ['in a dataset file this key is called "num_repeats"']),
    (FROG + "custom_attributes = { diff_output_preservation = 1 }\n", ["diff_output_preservation is true or false, found 1"]),
    (FROG + "class_prompt = 'a frog'\n", [f"{SUBSET_HERE} class_prompt: only regularisation pictures", "--prior_prediction"]),
    (FROG.replace("image_dir = 'frog'", "num_repeats = 1"), [f"{SUBSET_HERE} image_dir: this key is missing"]),
    (FROG.replace("'frog'", "''"), [f"{SUBSET_HERE} image_dir: this is empty"]),
    (FROG.replace("'frog'", "'frogs'"), [f"{SUBSET_HERE} image_dir: there is no folder 'frogs' (relative paths begin"]),
    (FROG.replace("'frog'", r'"C:\frog"'), [f"{SUBSET_HERE} image_dir: there is no folder", "single quotes"]),
    (FROG.replace("'frog'", "'data.toml'"), ["data.toml is a file; name the folder"]),
    (FROG + "is_reg = true\n", [f"{HERE}: there are only regularisation pictures"]),
    (FROG + "num_repeats = 0\n", [f"{HERE}: every subset is left out"]),
    (with_dataset("enable_bucket = true\nbucket_reso_steps = 48"), [f"{HERE} bucket_reso_steps: 48 is not divisible by 32"]),
    (with_dataset("enable_bucket = true\nmin_bucket_reso = 32"), ["min_bucket_reso: 32 is less than bucket_reso_steps (64)"]),
    (
        with_dataset("enable_bucket = true\nmin_bucket_reso = 640"),
        ["640 is more than the shorter side", "write min_bucket_reso = 256"],
    ),
    (
        with_dataset("enable_bucket = true").replace("512", "[2048, 512]"),
        [f"{HERE}, max_bucket_reso (default): 1024 is less than the longer side", "write max_bucket_reso = 4096"],
    ),
    (with_dataset("enable_bucket = true").replace("512", "32"), ["no side may be under bucket_reso_steps (64)"]),
    (FROG.replace("'frog'", f"'{'f' * 5000}'"), [f"{SUBSET_HERE} image_dir: "]),
    (FROG.replace("'frog'", '"fr\\u0000g"'), [f"{SUBSET_HERE} image_dir: expected text"]),
    ("", ["data.toml: there is no [[datasets]]"]),
    ("datasets = []\n", ["data.toml: there is no [[datasets]]"]),
    ("[datasets]\nresolution = 512\n", ["write [[datasets]] with two brackets"]),
    ("[[datasets]]\nresolution = 512\n", [f"{HERE}: there is no [[datasets.subsets]]"]),
    (
        "[[datasets]]\nresolution = 512\n[datasets.subsets]\nimage_dir = 'frog'\n",
        ["write [[datasets.subsets]] with two brackets"],
    ),
    ("datasets = [3]\n", [f"{HERE}: expected a table"]),
    ("general = 3\n" + FROG, ["data.toml [general]: expected a table"]),
    ("resolution = 512\n" + FROG, ["data.toml resolution: a key stands in a table"]),
    ("[genral]\n" + FROG, ["data.toml genral: unknown name", 'did you mean "general"']),
    ("[[subsets]]\n" + FROG, ["data.toml subsets: a subset belongs to a dataset"]),
    (with_dataset("[datasets.general]"), ["general: this table cannot stand in [[datasets]]"]),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_mistake_in_a_dataset_file(datasets: Any, mistakes: Mistakes, text: str, expected: list[str]) -> None:
    (message,) = mistakes(datasets, text)
    assert message.startswith("data.toml")
    assert all(part in message for part in expected), message


def test_all_mistakes_are_told_at_once(datasets: Any, mistakes: Mistakes) -> None:
    text = (
        "[general]\nbatch_sise = 1\nnum_repeats = 'x'\n"
        + FROG.replace("512", "500").replace("'frog'", "'frogs'")
        + "flip_aug = 1\n[[datasets.subsets]]\n"
        + FROG.replace("resolution = 512", "enable_bucket = true")
    )
    messages = mistakes(datasets, text)
    assert [message.split(": ")[0] for message in messages] == [
        "data.toml [general] batch_sise",
        "data.toml [general] num_repeats",
        f"{SUBSET_HERE} flip_aug",
        f"{HERE} [[datasets.subsets]] 2 image_dir",
        f"{SUBSET_HERE} image_dir",
        f"{HERE} resolution",
        "data.toml [[datasets]] 2",
    ]


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a privilege on Windows")
def test_a_link_to_a_folder_is_that_folder(datasets: Any, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "frog")
    (dataset,) = datasets(FROG + "[[datasets.subsets]]\nimage_dir = 'link'\n")
    assert len(dataset.subsets) == 1
    assert len(dataset.notes) == 1
