"""tools/new_model.py: a real Stable Diffusion 1.x in everything but size and training, and the same one for the same seed."""
from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from library.config.options.model import ModelOptions
from library.config.tool import read_tool_options
from library.errors import UserError
from library.families.detect import identify
from tools.new_model import WORD_DEVIATION, NewModelOptions, new_model

BASE = Path(__file__).parents[2] / "assets" / "base"
WEIGHTS = {name: f"{name}/diffusion_pytorch_model.safetensors" for name in ("unet", "vae")}
WEIGHTS["text_encoder"] = "text_encoder/model.safetensors"


def made(path: Path, *flags: str) -> Path:
    new_model(read_tool_options(NewModelOptions, [str(path), *flags]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("new") / "sub" / "model")


@pytest.mark.parametrize("part", WEIGHTS)
def test_its_tensors_have_the_names_and_shapes_of_the_base(model: Path, part: str) -> None:
    base, new = (load_file(folder / WEIGHTS[part]) for folder in (BASE, model))
    assert {name: tensor.shape for name, tensor in new.items()} == {name: tensor.shape for name, tensor in base.items()}
    if part == "vae":
        assert all(torch.equal(new[name], tensor.float()) for name, tensor in base.items())


def test_the_seed_decides_the_weights(model: Path, tmp_path: Path) -> None:
    same, other = made(tmp_path / "same"), made(tmp_path / "other", "--seed", "2")
    files = sorted(path.relative_to(model) for path in model.rglob("*") if path.is_file())
    assert all((same / file).read_bytes() == (model / file).read_bytes() for file in files)
    for part in ("unet", "text_encoder"):
        ours, theirs = load_file(model / WEIGHTS[part]), load_file(other / WEIGHTS[part])
        assert all(not torch.equal(tensor, theirs[name]) for name, tensor in ours.items() if tensor.ndim > 1)


def test_no_global_generator_moves(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    made(tmp_path / "model")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_words_begin_long_enough_to_be_told_from_silence(model: Path) -> None:
    words = load_file(model / WEIGHTS["text_encoder"])["text_model.embeddings.token_embedding.weight"]
    assert words.std().item() == pytest.approx(WORD_DEVIATION, rel=0.01)


def test_our_loader_and_that_of_diffusers_read_it(model: Path) -> None:
    options = ModelOptions(pretrained_model_name_or_path=str(model))
    family = identify(options)
    assert (family.name, family.objective, family.source_layout) == ("sd_v1", "epsilon", "diffusers_safetensors")
    ours = family.load(options, torch.float32, "cpu").unet.state_dict()
    pipeline = StableDiffusionPipeline.from_pretrained(model, local_files_only=True)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in pipeline.unet.state_dict().items())
    picture = pipeline("a frog", height=64, width=64, num_inference_steps=1, output_type="np").images[0]
    assert picture.shape == (64, 64, 3)


def test_nothing_is_overwritten(model: Path) -> None:
    with pytest.raises(UserError, match="this is there already; give a name that is free"):
        made(model)


def test_a_vae_that_is_not_there_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="vae"):
        made(tmp_path / "model", "--vae", str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []
