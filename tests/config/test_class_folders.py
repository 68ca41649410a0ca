"""Which folders class pictures are drawn into, from what prompt, and which wishes make no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from library.config.datasets import SubsetSettings, load_dataset_settings
from library.config.datasets.class_images import class_folder_name
from library.config.settings import Settings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]
DRAW = ("--num_class_images", "9")


@pytest.fixture(autouse=True)
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train/2_sls frog", "reg/1_frog", "two/1_frog", "two/1_toad", "plain/5", "empty"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "empty" / ".DS_Store").write_text("", encoding="utf-8")
    (tmp_path / "file").write_text("", encoding="utf-8")


@pytest.fixture
def by_flags(load: Load) -> Callable[..., list[SubsetSettings]]:
    """The regularisation subsets of folders."""

    def read(reg: str, *flags: str) -> list[SubsetSettings]:
        argv = ("--train_data_dir", "train", "--resolution", "512", "--reg_data_dir", reg)
        (dataset,) = load_dataset_settings(load(*argv, *flags))
        assert not any(subset.num_class_images or subset.class_prompt for subset in dataset.subsets if not subset.is_reg)
        return [subset for subset in dataset.subsets if subset.is_reg]

    return read


@pytest.fixture
def by_file(load: Load, tmp_path: Path) -> Callable[..., list[SubsetSettings]]:
    """All subsets of a file; each list of subsets is a dataset."""

    def read(*datasets: list[dict[str, Any]], flags: tuple[str, ...] = ()) -> list[SubsetSettings]:
        content = {"general": {"resolution": 512}, "datasets": [{"subsets": subsets} for subsets in datasets]}
        (tmp_path / "data.json").write_text(json.dumps(content), encoding="utf-8")
        found = load_dataset_settings(load("--dataset_config", "data.json", *flags))
        return [subset for dataset in found for subset in dataset.subsets]

    return read


def wish(subset: SubsetSettings) -> tuple[str, int, str | None, str | None]:
    assert subset.image_dir is not None
    return subset.image_dir.as_posix(), subset.num_class_images, subset.class_prompt, subset.class_tokens


def test_folders_are_filled_from_their_class_tokens(by_flags) -> None:
    assert [wish(subset) for subset in by_flags("two", *DRAW)] == [
        ("two/1_frog", 9, "frog", "frog"),
        ("two/1_toad", 9, "toad", "toad"),
    ]


def test_the_prompt_of_one_folder_is_its_caption_too(by_flags) -> None:
    prompt = ("--class_prompt", "a photo of a frog")
    assert [wish(subset) for subset in by_flags("reg", *DRAW, *prompt)] == [("reg/1_frog", 9, *["a photo of a frog"] * 2)]
    assert [wish(subset) for subset in by_flags("reg", *prompt)] == [("reg/1_frog", 0, *["a photo of a frog"] * 2)]
    assert [wish(subset) for subset in by_flags("reg")] == [("reg/1_frog", 0, None, "frog")]


@pytest.mark.parametrize("reg", ["missing", "empty", "missing/too"])
def test_a_folder_is_made_where_there_is_none(by_flags, reg) -> None:
    (subset,) = by_flags(reg, *DRAW, "--class_prompt", "a frog")
    assert (*wish(subset), subset.num_repeats) == (f"{reg}/1_a frog", 9, "a frog", "a frog", 1)
    assert not Path(reg, "1_a frog").exists()


@pytest.mark.parametrize(
    ("prompt", "name"),
    [("a frog", "1_a frog"), ("a/b: c?", "1_a_b_ c_"), ("größer.. ", "1_größer"), ("a\tb", "1_a_b"), ("x" * 99, "1_" + "x" * 80)],
)
def test_names_of_folders(prompt: str, name: str) -> None:
    assert class_folder_name(prompt) == name


def test_keys_of_a_subset_come_before_flags(by_file) -> None:
    train = {"image_dir": "train/2_sls frog"}
    frog = {"image_dir": "frogs", "is_reg": True, "num_class_images": 5, "class_prompt": "a frog", "class_tokens": "frog"}
    toad = {"image_dir": "toads", "is_reg": True, "class_tokens": "toad"}
    newt = {"image_dir": "reg", "is_reg": True, "class_tokens": "newt", "num_class_images": 0}
    assert [wish(subset) for subset in by_file([train, frog, toad, newt], flags=DRAW)] == [
        ("train/2_sls frog", 0, None, None),
        ("frogs", 5, "a frog", "a frog"),
        ("toads", 9, "toad", "toad"),
        ("reg", 0, None, "newt"),
    ]


def test_several_datasets_may_share_a_folder(by_file) -> None:
    reg = {"image_dir": "frogs", "is_reg": True, "num_class_images": 5, "class_prompt": "a frog"}
    train = {"image_dir": "train/2_sls frog"}
    assert len(by_file([train, reg], [train, {**reg, "image_dir": "train/../frogs"}])) == 4


@pytest.mark.parametrize(
    ("reg", "flags", "expected"),
    [
        ("missing", DRAW, ["--reg_data_dir: missing holds no folders", 'give --class_prompt "a frog"']),
        ("empty", DRAW, ["--reg_data_dir: empty holds no folders", 'give --class_prompt "a frog"']),
        ("missing", ("--class_prompt", "a frog"), ["--reg_data_dir: there is no folder 'missing'"]),
        ("file", (*DRAW, "--class_prompt", "a frog"), ["--reg_data_dir: file is a file"]),
        ("plain", DRAW, [str(Path("plain/5")), "class_prompt: this is missing"]),
        ("two", ("--class_prompt", "a frog"), ['class_prompt: "a frog" is that of', "one folder for both"]),
    ],
)
def test_mistakes_by_flags(by_flags, mistakes: Mistakes, reg: str, flags: tuple[str, ...], expected: list[str]) -> None:
    (message,) = mistakes(by_flags, reg, *flags)
    assert all(part in message for part in expected), message


TRAIN = {"image_dir": "train/2_sls frog"}
REG = {"image_dir": "frogs", "is_reg": True, "num_class_images": 5, "class_prompt": "a frog"}
SECOND = "data.json [[datasets]] 1 [[datasets.subsets]] 2"


@pytest.mark.parametrize(
    ("subsets", "expected"),
    [
        ([TRAIN | {"class_prompt": "a frog"}, REG], ["subsets]] 1 class_prompt: only regularisation", "is_reg = true"]),
        ([TRAIN | {"num_class_images": 3}, REG], ["subsets]] 1 num_class_images: only regularisation", "is_reg = true"]),
        ([TRAIN, REG | {"image_dir": "reg", "num_class_images": -1}], [f"{SECOND} num_class_images", "-1", "at least 0"]),
        ([TRAIN, REG | {"image_dir": "reg", "num_class_images": 100_000}], [f"{SECOND} num_class_images", "at most 99999"]),
        ([TRAIN, REG | {"image_dir": "reg", "num_class_images": 2.5}], [f"{SECOND} num_class_images", "2.5"]),
        ([TRAIN, REG | {"class_prompt": 3, "class_tokens": "frog"}], [f"{SECOND} class_prompt"]),
        ([TRAIN, REG | {"class_prompt": ""}], [f"{SECOND} class_prompt: this is missing", 'class_prompt = "a frog"']),
        ([TRAIN, REG | {"image_dir": "file"}], [f"{SECOND} image_dir: file is a file"]),
        ([TRAIN, REG | {"image_dir": "C:\new"}], [f"{SECOND} image_dir: there is no folder", "single quotes"]),
        ([TRAIN, REG | {"num_class_images": 0}], [f"{SECOND} image_dir: there is no folder 'frogs'"]),
        ([TRAIN, REG, REG | {"image_dir": "more"}], ['subsets]] 3 class_prompt: "a frog" is that of', SECOND]),
        ([{"metadata_file": "m.json"}, {"metadata_file": "n.json", "num_class_images": 3}], ["num_class_images", "do not use this"]),
    ],
)
def test_mistakes_in_a_file(by_file, mistakes: Mistakes, subsets: list[dict[str, Any]], expected: list[str]) -> None:
    for name in ("m.json", "n.json"):
        Path(name).write_text("{}", encoding="utf-8")
    (message,) = mistakes(by_file, subsets)
    assert all(part in message for part in expected), message


@pytest.mark.parametrize("change", [{"num_class_images": 6}, {"class_prompt": "a toad"}])
def test_one_folder_has_one_wish(by_file, mistakes: Mistakes, change: dict[str, Any]) -> None:
    (message,) = mistakes(by_file, [TRAIN, REG], [TRAIN, REG | change])
    assert message.startswith("data.json [[datasets]] 2 [[datasets.subsets]] 2 image_dir: class pictures are drawn into frogs for")


def test_what_is_drawn_is_not_trained_on_as_the_subject(by_file, mistakes: Mistakes) -> None:
    Path("frogs").mkdir()
    (message,) = mistakes(by_file, [{"image_dir": "frogs"}], [TRAIN, REG])
    assert message.startswith("data.json [[datasets]] 1 [[datasets.subsets]] 1 image_dir: class pictures are drawn into")


def test_flags_need_regularisation_pictures(by_file, load: Load, mistakes: Mistakes) -> None:
    messages = mistakes(lambda: by_file([TRAIN], flags=(*DRAW, "--class_prompt", "a frog")))
    assert [message.partition(";")[0] for message in messages] == [
        "--num_class_images: there are no regularisation pictures",
        "--class_prompt: there are no regularisation pictures",
    ]
    Path("m.json").write_text("{}", encoding="utf-8")
    described = ("--in_json", "m.json", "--train_data_dir", "train", "--reg_data_dir", "reg", "--resolution", "512")
    (message,) = mistakes(load_dataset_settings, load(*described, *DRAW))
    assert "--num_class_images: there are no regularisation pictures" in message


# --- prior_prediction ---

PRIOR = ("--prior_prediction",)


@pytest.mark.parametrize(
    ("flags", "own", "expected"),
    [
        (("--class_prompt", "a frog"), {}, "a frog"),
        (("--class_prompt", "a frog"), {"class_prompt": "a toad"}, "a toad"),
        ((), {"class_prompt": "a toad"}, "a toad"),
        (("--class_prompt", "a frog"), {"class_prompt": ""}, None),
    ],
)
def test_prior_prediction_takes_the_prompt_of_the_subset_or_the_flag(by_file, flags, own, expected) -> None:
    Path("reg").mkdir(exist_ok=True)
    other = {"image_dir": "reg", "class_prompt": "a newt"}
    subsets = by_file([TRAIN | own, other], flags=(*PRIOR, *flags))
    assert [subset.class_prompt for subset in subsets] == [expected, "a newt"]
    assert subsets[0].class_tokens is None


def test_prior_prediction_in_subsets_of_other_kinds(by_file) -> None:
    Path("m.json").write_text("{}", encoding="utf-8")
    (subset,) = by_file([{"metadata_file": "m.json", "class_prompt": "a frog"}], flags=PRIOR)
    assert subset.class_prompt == "a frog"


def test_prior_prediction_beside_regularisation_pictures(by_file) -> None:
    subsets = by_file([TRAIN, REG], flags=(*PRIOR, "--class_prompt", "a newt"))
    assert [subset.class_prompt for subset in subsets] == ["a newt", "a frog"]


def test_prior_prediction_needs_a_prompt(by_file, mistakes: Mistakes) -> None:
    (message,) = mistakes(lambda: by_file([TRAIN, REG], flags=PRIOR))
    assert message.startswith("--prior_prediction: nothing says what the model is to keep; give --class_prompt")


def test_marked_pictures_need_a_network(tmp_path: Path, load: Load, mistakes: Mistakes) -> None:
    table = TRAIN | {"custom_attributes": {"diff_output_preservation": True}}
    content = {"datasets": [{"resolution": 512, "subsets": [table]}]}
    (tmp_path / "data.json").write_text(json.dumps(content), encoding="utf-8")
    flags = ("--dataset_config", "data.json", "--token_string", "zorb")
    (message,) = mistakes(lambda: load_dataset_settings(load(*flags, script="train_textual_inversion.py")))
    assert "custom_attributes: diff_output_preservation needs the base model beside what is trained" in message
