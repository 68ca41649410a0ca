"""Folders named like "20_sls frog" instead of a dataset file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from library.config.datasets import DatasetSettings, load_dataset_settings
from library.config.settings import Settings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]


def folders(base: Path, *names: str) -> Path:
    for name in names:
        (base / name).mkdir(parents=True)
    return base


def read(load: Load, *argv: object) -> DatasetSettings:
    (dataset,) = load_dataset_settings(load("--resolution", "512", *argv))
    return dataset


def test_names_give_repeats_and_class_tokens_in_the_order_of_names(load: Load, tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "3_toad", "20_sls frog", "20_a_b", "5")
    reg = folders(tmp_path / "reg", "1_frog")
    (train / "readme.txt").write_text("x", encoding="utf-8")
    dataset = read(load, "--train_data_dir", train, "--reg_data_dir", reg, "--caption_extension", ".txt", "--flip_aug")
    assert [(subset.num_repeats, subset.class_tokens, subset.is_reg) for subset in dataset.subsets] == [
        (20, "a_b", False),
        (20, "sls frog", False),
        (3, "toad", False),
        (5, "", False),
        (1, "frog", True),
    ]
    assert all(subset.caption_extension == ".txt" and subset.flip_aug for subset in dataset.subsets)
    assert dataset.subsets[1].image_dir == train / "20_sls frog"
    assert dataset.subsets[1].where == str(train / "20_sls frog")
    assert (dataset.resolution, dataset.notes) == ((512, 512), ())


def test_folders_whose_name_says_nothing_are_noted(load: Load, tmp_path: Path) -> None:
    dataset = read(load, "--train_data_dir", folders(tmp_path / "train", "2_frog", "frog", "0_toad", "x_newt"))
    assert len(dataset.subsets) == 1
    assert [note.split(" is left out")[0] for note in dataset.notes] == [
        f"--train_data_dir: {tmp_path / 'train' / name}" for name in ("0_toad", "frog", "x_newt")
    ]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], ["no pictures to train on", "--train_data_dir", "20_sls frog", "--dataset_config"]),
        (["--reg_data_dir", "good"], ["reg_data_dir alone"]),
        (["--train_data_dir", "missing"], ["--train_data_dir: there is no folder 'missing'"]),
        (["--train_data_dir", "file"], ["file is a file; name the folder"]),
        (["--train_data_dir", "empty"], ["--train_data_dir: empty needs", "20_sls frog"]),
        (["--train_data_dir", "loose"], ["loose needs", "files that lie in it directly are not read"]),
        (["--train_data_dir", "unnamed"], ["unnamed needs", "20_sls frog"]),
        (["--train_data_dir", "good/1_frog"], ["1_frog needs", 'it is itself named like one, so give "good"']),
        (["--train_data_dir", "good", "--reg_data_dir", "missing"], ["--reg_data_dir: there is no folder"]),
        (["--train_data_dir", "good", "--resolution", "100"], ["--resolution: 100 is not a positive multiple of 8; write 128"]),
        (
            ["--train_data_dir", "good", "--enable_bucket", "--resolution", "128"],
            ["min_bucket_reso (default)", "write min_bucket_reso = 64"],
        ),
    ],
)
def test_mistakes(
    load: Load, mistakes: Mistakes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders(tmp_path, "good/1_frog", "empty", "loose", "unnamed/frog")
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "loose" / "a.png").write_text("x", encoding="utf-8")
    (message,) = mistakes(read, load, *argv)
    assert all(part in message for part in expected), message


def test_resolution_is_needed(load: Load, mistakes: Mistakes, tmp_path: Path) -> None:
    train = folders(tmp_path / "train", "1_frog")
    (message,) = mistakes(load_dataset_settings, load("--train_data_dir", train))
    assert message == "--train_data_dir: resolution is missing; give --resolution 512"
