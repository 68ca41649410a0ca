"""Settings written as a config file come back; the page about the options is up to date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from library.config import dump
from library.config.check import check_settings
from library.config.declare import option, options_of
from library.config.dump import options_markdown, settings_toml, toml_value
from library.config.settings import OPTIONS, TOPIC_OF, Settings, options_for, settings_of
from library.config.text_files import tomllib

ROOT = Path(__file__).parents[2]

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.one_of(texts, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False))


@given(st.one_of(values, st.lists(values)))
def test_toml_value_comes_back(value: Any) -> None:
    assert tomllib.loads(f"a = {toml_value(value)}")["a"] == value


def unusual(name: str) -> Any:
    """A value of an option that is not its default."""
    known = OPTIONS[name]
    if known.declared.choices:
        return next(choice for choice in known.declared.choices if choice != known.default)
    by_kind = {"bool": True, "int": 12, "float": 0.125, "int_or_float": 0.25, "Path": Path("a \\ b.toml")}
    special = {"resolution": (768, 512), "face_crop_aug_range": (1.0, 2.5)}
    value = special.get(name, by_kind.get(known.kind.name, 'a "text" with \\ and ü'))
    return (value, value) if known.kind.many else value


def test_resolved_settings_come_back(load: Callable[..., Settings], tmp_path: Path) -> None:
    taken = options_for("train_network.py")
    settings = settings_of({name: unusual(name) for name in taken})
    path = tmp_path / "resolved.toml"
    path.write_text(settings_toml(settings), encoding="utf-8")
    again = load("--config_file", path)
    kept = [name for name in taken if not OPTIONS[name].declared.secret]
    assert replace(again, config_path=None, sources={}) == settings_of({name: unusual(name) for name in kept})
    assert sorted(again.sources) == sorted(kept)


def test_defaults_come_back_and_pass_the_checks(load: Callable[..., Settings], tmp_path: Path) -> None:
    settings = load("--pretrained_model_name_or_path", "m", "--network_module", "networks.lora", "--output_dir", "o")
    path = tmp_path / "resolved.toml"
    path.write_text(settings_toml(settings), encoding="utf-8")
    again = load("--config_file", path)
    assert replace(again, config_path=None, sources={}) == replace(settings, sources={})
    assert check_settings(again) == []


def test_only_given_options_are_written(load: Callable[..., Settings]) -> None:
    settings = load("--seed", "3", "--flip_aug", "--network_args", "a=1")
    assert (
        settings_toml(settings, only_given=True)
        == '[network]\nnetwork_args = ["a=1"]\n\n[data]\nflip_aug = true\n\n[training]\nseed = 3\n'
    )


def test_secrets_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Upload:
        token: str = option("hunter2", "A password.", secret=True)
        place: str = option("hub", "A place.")

    monkeypatch.setattr(dump, "TOPICS", {"upload": Upload})
    monkeypatch.setitem(TOPIC_OF, "token", "upload")
    monkeypatch.setitem(TOPIC_OF, "place", "upload")
    for known in options_of(Upload):
        monkeypatch.setitem(OPTIONS, known.name, known)
    monkeypatch.setattr(dump, "options_for", lambda script: OPTIONS)
    settings = Settings()
    object.__setattr__(settings, "upload", Upload())
    assert settings_toml(settings) == '[upload]\nplace = "hub"\n'


def test_others_are_shown_neither_secrets_nor_places() -> None:
    settings = settings_of({name: unusual(name) for name in options_for("train_network.py")})
    shown = dump.shown_to_others(settings)
    assert {"learning_rate", "network_args", "resolution", "log_config"} <= shown.keys()
    assert {type(value) for value in shown.values()} == {bool, int, float, str}
    assert shown["network_args"] == toml_value(settings.network.network_args)
    assert not shown.keys() & {"wandb_api_key", "output_dir", "pretrained_model_name_or_path", "base_weights", "dataset_config"}
    assert "lr_scheduler_num_cycles" in dump.shown_to_others(Settings())
    assert "training_comment" not in dump.shown_to_others(Settings())  # not set


# Their help speaks of files and folders, but they hold no path.
PLACELESS = {
    "caption_extension", "class_prompt", "face_crop_aug_range", "log_prefix", "log_tracker_name", "output_name", "training_comment",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(name for name, known in OPTIONS.items() if known.kind.name in ("str", "Path")))
def test_what_names_a_place_is_declared_private(name: str) -> None:
    known = OPTIONS[name]
    speaks_of_places = known.kind.name == "Path" or any(word in known.declared.help.lower() for word in ("file", "folder"))
    assert known.declared.private or known.declared.choices or not speaks_of_places or name in PLACELESS


def test_options_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == options_markdown(), "run: python -m library.config.dump docs/options.md"


def test_options_page_tells_of_every_option() -> None:
    page = options_markdown()
    for name, known in OPTIONS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.replace("\\|", "").count("|") == 5
        assert known.declared.help.split("|")[0] in row
