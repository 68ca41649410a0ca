"""The declared options against the facts of the interface (script_flags.json), script by script, and their help."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from library.config.declare import options_of
from library.config.flags import build_parser
from library.config.names import FILE_OPTIONS, IMPOSSIBLE, OTHER_SCRIPTS
from library.config.old_spellings import OLD_NAMES
from library.config.options import TOPICS
from library.config.scripts import CACHING, EMBEDDING, FULL, NETWORK, SCRIPTS, TRAIN_NETWORK
from library.config.settings import OPTIONS, Settings, options_for

FACTS = json.loads(Path(__file__).with_name("script_flags.json").read_text(encoding="utf-8"))
NEW = {
    "caption_variants",
    "class_prompt",
    "dry_run",
    "early_stopping_patience",
    "ema",
    "ema_decay",
    "ema_samples",
    "num_class_images",
    "on_bad_image",
    "paired_prior",
    "prior_prediction",
    "save_best",
    "token_lr",
}
OF_TOOLS = {"skip_existing", "sdxl", "text_encoder_batch_size"}  # the interface has these for its tools alone
ALL = (*FULL, *NETWORK, *EMBEDDING)
# Options that more scripts take here than there: they are about the data, the text or the run, and mean the same in each.
WIDER = {
    "block_lr",
    "cache_text_encoder_outputs",
    "cache_text_encoder_outputs_to_disk",
    "caption_dropout_every_n_epochs",
    "caption_dropout_rate",
    "caption_tag_dropout_rate",
    "conditioning_data_dir",
    "dataset_repeats",
    "disable_mmap_load_safetensors",
    "fused_optimizer_groups",
    "in_json",
    "init_word",
    "initial_epoch",
    "initial_step",
    "learning_rate_te",
    "learning_rate_te1",
    "learning_rate_te2",
    "masked_loss",
    "max_validation_steps",
    "no_half_vae",
    "no_token_padding",
    "num_vectors_per_token",
    "prior_loss_weight",
    "reg_data_dir",
    "skip_until_initial_step",
    "stop_text_encoder_training",
    "token_string",
    "use_object_template",
    "use_style_template",
    "validate_every_n_epochs",
    "validate_every_n_steps",
    "validation_seed",
    "validation_split",
    "weighted_captions",
    "weights",
}


def facts_of(script: str) -> dict[str, dict[str, Any]]:
    return {fact["name"]: fact for fact in FACTS if fact["scripts"] == "all" or script in fact["scripts"]}


def scripts_of(name: str) -> set[str]:
    """Those that have the option in the interface."""
    return {script for script in ALL if name in facts_of(script)}


def test_the_facts_are_of_the_scripts_there_are() -> None:
    assert {script for fact in FACTS if fact["scripts"] != "all" for script in fact["scripts"]} == set(ALL)
    assert SCRIPTS.keys() - set(CACHING) == set(ALL)


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_are_declared_as_the_interface_has_them(script: str) -> None:
    facts = facts_of(script)
    for name, option in options_for(script).items():
        if name in NEW or name not in facts:
            continue
        fact = facts[name]
        assert option.kind.name == fact["type"], name
        assert option.default == fact["default"], name
        assert list(option.declared.choices) == [choice for choice in fact["choices"] or [] if choice is not None], name
        assert option.kind.many == (fact["nargs"] == "*"), name
        assert (option.default is False) == (fact["action"] == "store_true"), name


@pytest.mark.parametrize("script", SCRIPTS)
def test_flags_do_what_the_interface_says(script: str) -> None:
    facts, flags = facts_of(script), build_parser(SCRIPTS[script])._option_string_actions
    for name, option in options_for(script).items():
        switch = {"nargs": None, "action": "store_true"}
        usual = {"nargs": "*" if option.kind.many else None, "action": "store"}
        fact = facts.get(name, switch if option.default is False else usual)
        assert flags[f"--{name}"].nargs == (0 if fact["action"] == "store_true" else fact["nargs"]), name


def test_every_option_is_taken_by_the_scripts_of_the_interface_or_deliberately_by_more() -> None:
    wider = set()
    for name in OPTIONS.keys() - NEW - OF_TOOLS:
        takers = {script for script in ALL if OPTIONS[name].is_of(script)}
        assert scripts_of(name) <= takers, name
        wider |= {name} if scripts_of(name) != takers else set()
    assert wider == WIDER


def test_every_name_of_the_interface_is_declared_or_known() -> None:
    names = {fact["name"] for fact in FACTS}
    own = OPTIONS.keys() - NEW - OF_TOOLS
    assert names == own | IMPOSSIBLE.keys() | (OLD_NAMES.keys() & names) | set(FILE_OPTIONS)
    assert not (IMPOSSIBLE.keys()) & OPTIONS.keys()
    assert not OTHER_SCRIPTS.keys() & SCRIPTS.keys()


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_exists_and_says_which_it_is(script: str) -> None:
    text = (Path(__file__).parents[2] / script).read_text(encoding="utf-8")
    constant = Path(script).stem.upper()
    assert f"main({constant})" in text
    assert SCRIPTS[script].general in (None, *SCRIPTS)


def test_names_are_declared_once() -> None:
    names = [field.name for topic in TOPICS.values() for field in dataclasses.fields(topic)]
    assert len(names) == len(set(names)) == len(OPTIONS)
    assert TOPICS.keys() == Settings.__dataclass_fields__.keys() - {"script", "config_path", "sources", "notes"}


@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_help_is_a_sentence(name: str) -> None:
    text = OPTIONS[name].declared.help
    assert len(text) > 15
    assert "\n" not in text
    assert text.endswith(".")


def test_help_is_grouped_by_topic(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        build_parser(TRAIN_NETWORK).parse_args(["--help"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    headings = [line[:-1] for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
    taken = [topic for topic, options in TOPICS.items() if any(option.is_of("train_network.py") for option in options_of(options))]
    assert headings[-len(taken) :] == taken
    assert shown.index("\nnetwork:") < shown.index("\n  --network_dim N") < shown.index("\ndata:")
    assert "10%)" in shown
    assert "caption_extention" not in shown
