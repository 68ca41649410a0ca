"""Runs with cached captions train to the very weights of runs without; what a tool has cached beforehand is used."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest

from library.config.scripts import CACHING
from library.families.sd import StableDiffusion
from library.types import TextSettings
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_parts
from tests.train.runs import KILL, Strike, Workshop, make_workshop, tensors_hash

UNIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
OPTIONS = {
    "network_train_unet_only": True,
    "max_train_steps": 4,  # into the second epoch
    "train_batch_size": 2,
    "network_dropout": 0.1,
    "caption_dropout_rate": 0.3,
    "clip_skip": 2,
    "max_token_length": 150,
    "weighted_captions": True,
    "max_data_loader_n_workers": 0,
}
CACHED = {"cache_text_encoder_outputs_to_disk": True}
VARIED = {"shuffle_caption": True, "caption_variants": 3}


@pytest.fixture
def workshop(tmp_path) -> Workshop:
    return make_workshop(tmp_path, **OPTIONS)


def final(workshop: Workshop, name: str) -> str:
    return tensors_hash(workshop.output(name) / "toad.safetensors")


def trained(workshop: Workshop, name: str, **options) -> str:
    """What a run has printed."""
    outcome = workshop.train(name, **options)
    assert outcome.code == 0, outcome.output
    return outcome.output


def caches(workshop: Workshop) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workshop.folder / "data" / "1_toad").glob("[!.]*.npz")}


def test_cached_captions_train_to_the_bits_of_encoded_ones(workshop):
    trained(workshop, "plain")
    trained(workshop, "memory", cache_text_encoder_outputs=True)
    output = trained(workshop, "disk", **CACHED)
    assert "text encoder outputs: 0 captions from the cache, 6 encoded (6 not made yet)" in output
    output = trained(workshop, "again", **CACHED, max_data_loader_n_workers=2)
    assert "text encoder outputs: 6 captions from the cache, 0 encoded" in output
    assert final(workshop, "plain") == final(workshop, "memory") == final(workshop, "disk") == final(workshop, "again")


@UNIX
def test_a_run_with_variants_that_is_killed_resumes_to_the_same_weights_with_any_number_of_workers(workshop):
    options = {**CACHED, **VARIED, "max_train_steps": 7, "save_state": True, "save_every_n_steps": 2}  # into the third epoch
    trained(workshop, "unbroken", **options)
    strike = Strike("library.train.runtime.Runtime.backward", 6, "after")
    assert workshop.train("killed", strikes=[strike], **options).code == -KILL
    outcome = workshop.go_on("killed", max_data_loader_n_workers=2, **options)
    assert outcome.code == 0, outcome.output
    assert "6 captions from the cache, 0 encoded" in outcome.output
    assert final(workshop, "killed") == final(workshop, "unbroken")
    trained(workshop, "another number", **{**options, "caption_variants": 4})
    assert final(workshop, "another number") != final(workshop, "unbroken")


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> dict[str, bytes]:
    """The caches that the tool makes when nothing befalls it."""
    tool = replace(make_workshop(tmp_path_factory.mktemp("filled"), **OPTIONS), script=CACHING[1])
    trained(tool, "unbroken", text_encoder_batch_size=1)
    return caches(tool)


@UNIX
@pytest.mark.parametrize(
    ("strike", "whole"),
    [
        (Strike("library.checkpoint.files.replace", 3, "before"), 2),
        (Strike("library.checkpoint.files.replace", 3, "after"), 3),
        (Strike("library.families.sd.StableDiffusion.encode_text", 2, "after"), 2),
    ],
)
def test_killed_while_filling_a_second_run_makes_what_is_missing(workshop, filled, strike, whole):
    workshop = replace(workshop, script=CACHING[1])
    options = {"text_encoder_batch_size": 1}
    assert workshop.train("killed", strikes=[strike], **options).code == -KILL
    found, folder = caches(workshop), workshop.folder / "data" / "1_toad"
    assert found.items() <= filled.items() and len(found) <= whole
    torn = sorted(found)[:1]  # threads write: after the last of these strikes there may be none
    for name in torn:
        (folder / name).write_bytes(found[name][:5000])
    output = trained(workshop, "killed", **options)
    kept = len(found) - len(torn)
    assert f"{kept} captions from the cache, {6 - kept} encoded" in output and ("damaged" in output) == bool(torn)
    assert caches(workshop) == filled and not list(folder.glob(".*"))


def test_another_text_encoder_or_setting_is_noticed(workshop):
    trained(workshop, "first", **CACHED, max_train_steps=1)
    before = caches(workshop)
    other = tiny_sd1_folder(workshop.folder / "other", seed=5)
    shutil.copytree(workshop.folder / "model", workshop.folder / "mixed")
    shutil.copytree(other / "text_encoder", workshop.folder / "mixed" / "text_encoder", dirs_exist_ok=True)
    output = trained(workshop, "other", **CACHED, max_train_steps=1, pretrained_model_name_or_path=str(workshop.folder / "mixed"))
    assert "6 encoded (6 made with another text encoder)" in output
    output = trained(workshop, "back", **CACHED, max_train_steps=1)
    assert "6 encoded (6 made with another text encoder)" in output
    assert caches(workshop) == before
    output = trained(workshop, "skip", **CACHED, max_train_steps=1, clip_skip=None)
    assert "6 encoded (6 made with another clip_skip)" in output


def test_the_text_encoder_leaves_the_device_unless_samples_need_it(workshop):
    moved, encoded = "library.families.clip.TextEncoder.to", "library.families.sd.StableDiffusion.encode_text"
    quiet = workshop.count_calls("quiet", [moved, encoded], **CACHED)
    assert quiet[encoded] == 1  # six captions at once
    prompts = workshop.folder / "prompts.txt"
    prompts.write_text("a toad --s 1 --w 64 --h 64", encoding="utf-8")
    counted = workshop.count_calls("drawn", [moved, encoded], **CACHED, sample_prompts=str(prompts), sample_every_n_steps=2)
    assert counted[encoded] == 2
    assert quiet[moved] == counted[moved] + 1  # loading moves it too
    assert len(list((workshop.output("drawn") / "sample").glob("*.png"))) == 3


def test_the_file_holds_the_hidden_states_of_the_family(workshop):
    trained(workshop, "made", **CACHED, clip_skip=None, max_token_length=None, weighted_captions=None, max_train_steps=1)
    family, parts = StableDiffusion(), tiny_sd1_parts(short=True)
    expected = family.encode_text(parts, ["toad 0, green, wet, small, on a stone", ""], TextSettings()).hidden_states
    for name, states in zip(("0_sd_te.npz", "_empty_caption_sd_te.npz"), expected, strict=True):
        with np.load(workshop.folder / "data" / "1_toad" / name) as entry:
            assert entry.files == ["fingerprint", "hidden_state"]
            assert entry["hidden_state"].shape == (77, 32) and np.array_equal(entry["hidden_state"], states)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"network_train_unet_only": None}, "network_train_unet_only = true"),
        ({"shuffle_caption": True}, "--caption_variants"),
        ({"token_warmup_step": 3, "caption_variants": 2}, "drop token_warmup_step"),
    ],
)
def test_what_cannot_be_cached_is_told_before_the_model_is_loaded(workshop, options, expected):
    outcome = workshop.train("bad", **CACHED, **options)
    assert outcome.code == 2 and expected in outcome.output
    assert not list(workshop.output("bad").glob("*")) and not caches(workshop)


@pytest.mark.parametrize("tool", CACHING)
def test_a_training_after_the_tool_encodes_nothing(workshop, tool):
    options = {**VARIED, **CACHED, "cache_latents_to_disk": True, "vae_batch_size": 2}
    filling = replace(workshop, script=tool)
    output = trained(filling, "tool", **options)
    captions = "text" in tool
    made = "text encoder outputs: 0 captions" if captions else "latents: 0 images"
    assert f"{made} from the cache, {5 + captions} encoded ({5 + captions} not made yet)" in output
    assert not list(workshop.output("tool").glob("*"))
    before = caches(workshop)
    assert {name.endswith("_sd_te.npz") for name in before} == {captions}
    assert f"{5 + captions} {'captions' if captions else 'images'} from the cache, 0 encoded" in trained(filling, "tool", **options)
    output = trained(workshop, "trained", **options, seed=7)
    assert f"{5 + captions} {'captions' if captions else 'images'} from the cache, 0 encoded" in output
    assert before.items() <= caches(workshop).items()


@UNIX
def test_two_processes_share_the_work(workshop):
    outcomes = replace(workshop, script=CACHING[1]).train_in_two("two", **VARIED)
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    assert "text encoder outputs: 0 captions from the cache, 6 encoded (6 not made yet)" in outcomes[0].output
    assert "6 captions from the cache, 0 encoded" in trained(workshop, "trained", **VARIED, **CACHED)


@pytest.mark.parametrize("tool", CACHING)
def test_a_tool_needs_no_network_and_no_output_folder(workshop, tool):
    options = {"network_module": None, "network_dim": None, "output_dir": None, "cache_latents": None}
    trained(replace(workshop, script=tool), "bare", **options, network_train_unet_only=None)
    assert len(caches(workshop)) == (6 if "text" in tool else 5)
    (workshop.folder / "data" / "1_toad" / "1.txt").write_text("changed", encoding="utf-8")
    torn = next((workshop.folder / "data" / "1_toad").glob("3_*.npz"))
    torn.write_bytes(b"torn")
    output = trained(replace(workshop, script=tool), "trusting", **options, skip_existing=True)
    assert "from the cache, 0 encoded" in output and torn.read_bytes() == b"torn"
    assert "damaged" in trained(replace(workshop, script=tool), "checking", **options)
    outcome = replace(workshop, script=tool).train("wrong", **options, sdxl=True)
    assert outcome.code == 2 and "sdxl: " in outcome.output and "is sd_v1; leave out sdxl" in outcome.output
    outcome = replace(workshop, script=tool).train("dry", **options, dry_run=True)
    assert outcome.code == 0 and "nothing was encoded or written" in outcome.output


@pytest.mark.parametrize("tool", CACHING)
def test_a_tool_caches_what_a_metadata_file_describes(workshop, tool):
    pictures = workshop.folder / "data" / "1_toad"
    (workshop.folder / "meta.json").write_text('{"0": {"caption": "a toad"}, "3": {"tags": "toad, wet"}}', encoding="utf-8")
    described = {"in_json": str(workshop.folder / "meta.json"), "train_data_dir": str(pictures), "cache_latents": None}
    output = trained(replace(workshop, script=tool), "described", **described, caption_dropout_rate=None)
    assert "from the cache, 2 encoded (2 not made yet)" in output
    assert "from the cache, 0 encoded" in trained(replace(workshop, script=tool), "again", **described, caption_dropout_rate=None)


def test_held_out_pictures_are_cached_too(workshop):
    output = trained(replace(workshop, script=CACHING[1]), "held out", validation_split=0.4, caption_dropout_rate=None)
    assert "5 encoded" in output


def test_base_weights_that_change_the_text_encoder_are_merged_before_captions_are_encoded(workshop):
    trained(workshop, "earlier", network_train_unet_only=None, cache_latents=None)
    merged = {**CACHED, "base_weights": [str(workshop.output("earlier") / "toad.safetensors")], "max_train_steps": 1}
    tool = replace(workshop, script=CACHING[1])
    trained(tool, "without", **CACHED)
    assert "6 encoded (6 made with another text encoder)" in trained(tool, "with", **merged)
    assert "6 captions from the cache, 0 encoded" in trained(workshop, "trained", **merged)


@UNIX
def test_a_tool_that_is_asked_to_stop_goes_on_where_it_was(workshop):
    tool = replace(workshop, script=CACHING[1])
    strike = Strike("library.families.sd.StableDiffusion.encode_text", 3, "before", signal.SIGTERM)
    outcome = tool.train("stopped", strikes=[strike], text_encoder_batch_size=1)
    assert outcome.code == 143 and "finishing what is being encoded" in outcome.output, outcome.output
    assert len(caches(workshop)) == 3
    assert "3 captions from the cache, 3 encoded" in trained(tool, "again", text_encoder_batch_size=1)
