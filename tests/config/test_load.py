"""Defaults < config file < flags, and what is said about mistakes in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from library.config.load import load_settings
from library.config.settings import Settings

Load = Callable[..., Settings]
Write = Callable[[str, str], Path]
Mistakes = Callable[..., list[str]]


def test_defaults_hold_where_nothing_is_given(load: Load) -> None:
    settings = load()
    assert settings.optimizer.learning_rate == 2e-6
    assert settings.given("learning_rate") is None
    assert settings.where("learning_rate") == "learning_rate (default)"
    assert settings.config_path is None


def test_flags_win_over_the_file_and_the_file_over_defaults(load: Load, write: Write) -> None:
    path = write("run.toml", "max_train_steps = 10\n[network]\nnetwork_dim = 8\nflip_aug = true\n[other]\nlearning_rate = 1\n")
    settings = load("--config_file", path, "--network_dim", "16")
    assert (settings.training.max_train_steps, settings.network.network_dim, settings.optimizer.learning_rate) == (10, 16, 1.0)
    assert settings.data.flip_aug
    assert settings.given("max_train_steps") == str(path)
    assert settings.given("network_dim") == "--network_dim"
    assert settings.where("learning_rate") == f"{path} [other] learning_rate"
    assert settings.config_path == path
    assert isinstance(settings.optimizer.learning_rate, float)


def test_config_file_may_be_named_without_its_extension(load: Load, write: Write) -> None:
    path = write("run.toml", "seed = 7\n")
    assert load("--config_file", path.with_suffix("")).training.seed == 7


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("512", (512, 512)),
        ('"512"', (512, 512)),
        ('"512,768"', (512, 768)),
        ("[512, 768]", (512, 768)),
        ('"512, 768"', (512, 768)),
    ],
)
def test_resolution_in_a_file(load: Load, write: Write, written: str, value: tuple[int, int]) -> None:
    assert load("--config_file", write("run.toml", f"resolution = {written}\n")).data.resolution == value


@pytest.mark.parametrize(("text", "value"), [("100", 100), ("0", 0), ("0.1", 0.1), ("10%", 0.1), ("1e-1", 0.1)])
def test_steps_as_a_count_or_a_part(load: Load, write: Write, text: str, value: float) -> None:
    assert load("--lr_warmup_steps", text).scheduler.lr_warmup_steps == value
    in_file = f'"{text}"' if "%" in text else text
    from_file = load("--config_file", write("run.toml", f"lr_warmup_steps = {in_file}\n")).scheduler.lr_warmup_steps
    assert from_file == value
    assert isinstance(from_file, int) == isinstance(value, int)


def test_lists(load: Load, write: Write) -> None:
    text = 'network_args = ["conv_dim=4", "conv_alpha=1"]\ntext_encoder_lr = 1e-5\nbase_weights_multiplier = [1, 0.5]\n'
    settings = load("--config_file", write("run.toml", text))
    assert settings.network.network_args == ("conv_dim=4", "conv_alpha=1")
    assert settings.optimizer.text_encoder_lr == (1e-5,)
    assert settings.network.base_weights_multiplier == (1.0, 0.5)
    flags = load("--optimizer_args", "weight_decay=0.1", "betas=0.9,0.99", "--text_encoder_lr", "1e-5", "2e-5")
    assert flags.optimizer.optimizer_args == ("weight_decay=0.1", "betas=0.9,0.99")
    assert flags.optimizer.text_encoder_lr == (1e-5, 2e-5)


def test_empty_text_leaves_an_option_out(load: Load, write: Write) -> None:
    settings = load("--config_file", write("run.toml", 'vae = ""\nsave_precision = ""\n'), "--caption_prefix", "")
    assert settings.model.vae is settings.saving.save_precision is settings.data.caption_prefix is None


def test_disk_cache_is_a_cache(load: Load) -> None:
    assert load("--cache_latents_to_disk").data.cache_latents


def test_an_option_in_its_old_and_its_new_spelling(load: Load, write: Write, mistakes: Mistakes) -> None:
    both = write("both.toml", 'caption_extention = ".txt"\n[a]\ncaption_extension = ".txt"\n')
    (message,) = mistakes(load, "--config_file", both)
    assert message == f"{both} [a] caption_extension: this key stands twice, also as {both} caption_extention"


WRONG_LINES = [
    ("learning_rat = 1e-4", ["learning_rat:", 'did you mean "learning_rate"']),
    ("learning-rate = 1e-4", ["learning-rate:", 'did you mean "learning_rate"']),
    ('learning_rate = "1e-4"', ["learning_rate:", "expected a number", 'the text "1e-4"', "write learning_rate = 1e-4"]),
    ('learning_rate = "fast"', ["expected a number", '"fast"']),
    ("learning_rate = nan", ["expected a number"]),
    ("learning_rate = inf", ["expected a number"]),
    ("learning_rate = true", ["expected a number", "found true"]),
    ("learning_rate = -1.0", ["too small"]),
    ("network_dim = 8.0", ["expected a whole number, found 8.0", "write network_dim = 8"]),
    ("network_dim = 8.5", ["expected a whole number, found 8.5"]),
    ("network_dim = true", ["expected a whole number, found true"]),
    ('network_dim = "8"', ["write network_dim = 8"]),
    ("network_dim = 0", ["at least 1"]),
    ("caption_dropout_rate = 1.5", ["at most 1"]),
    ('flip_aug = "true"', ["expected true or false", "write flip_aug = true"]),
    ("flip_aug = 1", ["write flip_aug = true"]),
    ("output_name = 5", ["expected text, found 5", 'write output_name = "5"']),
    ("output_name = 2024-01-01", ["expected text, found 2024-01-01"]),
    ("output_name = { a = 1 }", ["output_name", "found a table"]),
    ('loss_type = "hubber"', ['"hubber" is not one of l1, l2, huber, smooth_l1', 'did you mean "huber"']),
    ("max_token_length = 100", ["100 is not one of 150, 225"]),
    ('network_args = "conv_dim=4"', ['write network_args = ["conv_dim=4"]']),
    ("network_args = [4]", ["expected a list of texts"]),
    ('text_encoder_lr = [1e-4, "x"]', ["expected a number or a list of numbers"]),
    ("text_encoder_lr = [1e-4, -1.0]", ["too small"]),
    ("resolution = 512.5", ["resolution", "expected a size"]),
    ('resolution = "512x768"', ["expected a size"]),
    ("resolution = [1, 2, 3]", ["expected a size"]),
    ("face_crop_aug_range = [2.0]", ["two numbers"]),
    ("lr_warmup_steps = 1.5", ["expected a whole number of steps", "write lr_warmup_steps = 2"]),
    ('lr_warmup_steps = "100%"', ["expected a whole number of steps"]),
    ("seed = -1", ["seed", "at least 0"]),
    ("fp16_master_weights_and_gradients = true", ["fp16_master_weights_and_gradients", "delete it"]),
    ("cpu_offload_checkpointing = true", ["cpu_offload_checkpointing", "delete it"]),
    ("diffusers_xformers = 3", ["diffusers_xformers", "true or false"]),
    ("train_text_encoder = true", ["an option of fine_tune.py", "not of train_network.py"]),
    ("learning_rate_te = 1", ["train_db.py"]),
    ("batch_size = 4", ['did you mean "train_batch_size"', "dataset files"]),
    ('class_tokens = "frog"', ["dataset file", "--dataset_config"]),
    ("[[datasets]]", ["[datasets]", "belongs in a dataset file"]),
    ("[general]", ["belongs in a dataset file"]),
    ("output_config = true", ["a flag only"]),
    ('config_file = "x"', ["a flag only"]),
    ("[a.b]\nseed = 1", ["[a] b", "unknown option"]),
    ("zzzzzz = 1", ["unknown option", "--help"]),
]


@pytest.mark.parametrize(("line", "expected"), WRONG_LINES)
def test_mistake_in_a_file(load: Load, write: Write, mistakes: Mistakes, line: str, expected: list[str]) -> None:
    path = write("run.toml", line + "\n")
    (message,) = mistakes(load, "--config_file", path)
    assert message.startswith(str(path))
    assert all(part in message for part in expected), message


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--learnin_rate", "1e-4"], ["--learnin_rate:", 'did you mean "learning_rate"']),
        (["--learnin_rate=1e-4"], ["--learnin_rate:", 'did you mean "learning_rate"']),
        (["--learning", "1"], ["--learning:", "unknown option"]),
        (["-seed", "1"], ["-seed", "two dashes"]),
        (["--network_dim", "x"], ["--network_dim: expected a whole number, found 'x'"]),
        (["--network_dim", "8.0"], ["--network_dim: expected a whole number"]),
        (["--network_dim"], ["--network_dim", "expected one argument"]),
        (["--network_dim", "0"], ["--network_dim: 0 is too small"]),
        (["--text_encoder_lr", "1", "x"], ["--text_encoder_lr: expected numbers"]),
        (["--mixed_precision", "fp61"], ["not one of no, fp16, bf16", 'did you mean "fp16"']),
        (["--flip_aug", "true"], ["'true': unexpected, --flip_aug takes no value"]),
        (["--seed", "1", "2"], ["'2': unexpected"]),
        (["--fp16_master_weights_and_gradients"], ["--fp16_master_weights_and_gradients: under DeepSpeed"]),
        (["--train_text_encoder"], ["--train_text_encoder", "fine_tune.py"]),
        (["--lr_warmup_steps", "100.0"], ["--lr_warmup_steps", "write --lr_warmup_steps 100"]),
        (["--resolution", "512,a"], ["--resolution: expected a size"]),
        (["--max_token_length", "75"], ["75 is not one of 150, 225"]),
    ],
)
def test_mistake_in_flags(load: Load, mistakes: Mistakes, argv: list[str], expected: list[str]) -> None:
    (message,) = mistakes(load, *argv)
    assert all(part in message for part in expected), message


def test_all_mistakes_are_told_at_once(load: Load, write: Write, mistakes: Mistakes) -> None:
    path = write("run.toml", 'learning_rat = 1\n[a]\nseed = "x"\n[b]\nseed = 1\n')
    messages = mistakes(load, "--config_file", path, "--network_dim", "x", "--typo", "--mixed_precision", "half")
    assert [message.split(":")[0] for message in messages[:3]] == ["--typo", "--network_dim", "--mixed_precision"]
    assert messages[3].startswith(f"{path} learning_rat:")
    assert messages[4].startswith(f"{path} [a] seed:")
    assert messages[5] == f"{path} [b] seed: this key stands twice, also as {path} [a] seed"
    assert len(messages) == 6


def test_missing_config_file_names_its_neighbour(load: Load, write: Write, mistakes: Mistakes, tmp_path: Path) -> None:
    write("frog_lora.toml", "")
    (message,) = mistakes(load, "--config_file", tmp_path / "frog_lore.toml")
    assert "there is no such config file" in message
    assert f'did you mean "{tmp_path / "frog_lora.toml"}"' in message


def test_output_config_writes_what_is_given(load: Load, write: Write, mistakes: Mistakes, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    argv = ["--output_config", "--config_file", str(path), "--network_args", "a=1", "--learning_rate", "1e-4", "--flip_aug"]
    assert load_settings("train_network.py", argv) is None
    again = load("--config_file", path)
    assert sorted(again.sources) == ["flip_aug", "learning_rate", "network_args"]
    assert (again.network.network_args, again.optimizer.learning_rate, again.data.flip_aug) == (("a=1",), 1e-4, True)
    before = path.read_bytes()
    (message,) = mistakes(load_settings, "train_network.py", argv)
    assert "exists already and is not overwritten" in message
    assert path.read_bytes() == before
    (message,) = mistakes(load_settings, "train_network.py", ["--output_config"])
    assert "--config_file NEW.toml" in message
    lost = ["--output_config", "--config_file", str(tmp_path / "no" / "such" / "x.toml")]
    (message,) = mistakes(load_settings, "train_network.py", lost)
    assert "cannot be written" in message
