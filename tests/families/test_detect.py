"""Which model a checkpoint is, and every mistake that is found without reading a weight."""
from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from library.config.options.model import ModelOptions
from library.errors import UserError
from library.families import weight_files
from library.families.detect import identify
from tests.families.test_single_file_names import full_file
from tests.tiny_models import tiny_sd1_folder, tiny_sd1_single_file

COUNTS = {"unet": 144292, "text_encoder": 1600672, "vae": 67231}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder and single files to look at; tests that change something copy it first."""
    folder = tmp_path_factory.mktemp("models")
    tiny_sd1_folder(folder / "diffusers")
    tiny_sd1_single_file(folder / "model.safetensors")
    tiny_sd1_single_file(folder / "model.ckpt")
    return folder


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch):
    def refuse(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(weight_files, "stored_tensors", refuse)


def options(path, **others):
    return ModelOptions(pretrained_model_name_or_path=str(path), **others)


def message(path, **others):
    with pytest.raises(UserError) as caught:
        identify(options(path, **others))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["diffusers", "model.safetensors", "model.ckpt"])
def test_sd1_is_recognised(models, name):
    family = identify(options(models / name))
    assert (family.name, family.objective, family.latent_scale) == ("sd_v1", "epsilon", 0.18215)
    assert family.parameter_counts() == COUNTS


@pytest.mark.parametrize("name", ["MODEL.SAFETENSORS", "a model ü.CKPT"])
def test_names_of_files(models, tmp_path, name):
    shutil.copy(models / ("model" + name[name.index(".") :].lower()), tmp_path / name)
    assert identify(options(tmp_path / name)).parameter_counts() == COUNTS


def test_no_torch_is_imported_for_it(models):
    code = (
        "import sys; from library.families.detect import identify; from library.config.options.model import ModelOptions\n"
        "for path in sys.argv[1:]: identify(ModelOptions(pretrained_model_name_or_path=path))\n"
        "heavy = {'torch', 'diffusers', 'transformers'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, models / "diffusers", models / "model.safetensors"], check=True)


FULL_COUNTS = {
    "sd_v1": {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863},
    "sd_v2": {"unet": 865_910_724, "text_encoder": 340_387_840, "vae": 83_653_863},
    "sdxl": {"unet": 2_567_463_684, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840, "vae": 83_653_863},
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files, the test file would take 7 GB there")
@pytest.mark.parametrize("name", FULL_COUNTS)
def test_released_models_in_full_size(tmp_path, name):
    path = tmp_path / "model.safetensors"
    header, end = {}, 0
    for key, tensor in full_file(name)[1].items():
        size = 2 * torch.Size(tensor.shape).numel()
        header[key] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text_header = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text_header)) + text_header)
        file.truncate(8 + len(text_header) + end)
    family = identify(options(path))
    assert (family.name, family.parameter_counts()) == (name, FULL_COUNTS[name])


def test_paths_that_are_not_there(tmp_path):
    assert "no such file or folder" in message(tmp_path / "nowhere.safetensors")
    assert "no such file or folder" in message(tmp_path / "nowhere")
    (tmp_path / "frogs.safetensors").touch()
    assert f'no such file or folder (did you mean "{(tmp_path / "frogs.safetensors").as_posix()}"?)' in message(tmp_path / "forgs.safetensors")
    assert "missing" in message("")


def test_a_hub_id_that_cannot_be_had():
    """In a process of its own: the hub's library reads its environment when it is imported."""
    code = (
        "from library.families.detect import identify; from library.config.options.model import ModelOptions\n"
        "from library.errors import UserError\n"
        "try: identify(ModelOptions(pretrained_model_name_or_path='nobody/nothing'))\n"
        "except UserError as error: print(error)"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True)
    assert "nobody/nothing: no such file or folder here, and the Hugging Face hub says: " in done.stdout


def test_a_hub_id_is_fetched_part_by_part(models, monkeypatch, tmp_path):
    """The hub's downloader is replaced by one that copies what the patterns ask for."""
    import huggingface_hub

    asked = []

    def download(model_id, allow_patterns, ignore_patterns):
        asked.append(allow_patterns)
        for pattern in allow_patterns:
            for file in (models / "diffusers").glob(pattern):
                target = tmp_path / "cache" / file.relative_to(models / "diffusers")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert identify(options("somebody/something")).parameter_counts() == COUNTS
    assert asked[1:] == [["unet/*.safetensors", "text_encoder/*.safetensors", "vae/*.safetensors"]]


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
def test_cut_off_safetensors(models, tmp_path, kept):
    content = (models / "model.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert any(words in message(path) for words in ("cut off", "empty", "not a safetensors file"))


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.999])
def test_cut_off_pickle(models, tmp_path, kept):
    content = (models / "model.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(content[: kept if isinstance(kept, int) else int(len(content) * kept)])
    assert any(words in message(path) for words in ("cut off", "empty"))


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("it-was-run",)


@pytest.mark.parametrize("zipped", [True, False])
def test_malicious_pickles_are_refused_and_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": {"weight": Malicious()}}, path, _use_new_zipfile_serialization=zipped)
    assert "refused" in message(path)
    assert "mkdir" in message(path)
    path.write_bytes(pickle.dumps(Malicious()))
    assert "refused" in message(path)
    assert not (tmp_path / "it-was-run").exists()


def test_other_kinds_of_file(models, tmp_path):
    path = tmp_path / "page.safetensors"
    path.write_bytes(b"<!DOCTYPE html><title>Sign in</title>")
    assert "web page" in message(path)
    shutil.copy(models / "model.ckpt", path)
    assert "PyTorch pickle" in message(path)
    path.write_bytes(struct.pack("<Q", 40) + b"{" + b"x" * 39)
    assert "damaged" in message(path)
    path = tmp_path / "picture.ckpt"
    path.write_bytes(b"\x89PNG and so on")
    assert "not a PyTorch file" in message(path)
    path = tmp_path / "list.ckpt"
    torch.save([1, 2], path)
    assert "list" in message(path)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    assert "must end in" in message(path)


UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({UNET_IN: (8, 4, 3, 3), "cond_stage_model.model.ln_final.weight": (8,)}, "of Stable Diffusion 2.x is missing or not complete"),
        ({UNET_IN: (8, 4, 3, 3), "conditioner.embedders.1.model.ln_final.weight": (8,)}, "of Stable Diffusion XL is missing or not complete"),
        ({UNET_IN: (8, 4, 3, 3), "conditioner.embedders.0.model.ln_final.weight": (8,)}, "refiner, which cannot be trained"),
        ({UNET_IN: (8, 9, 3, 3)}, "inpainting model (9 input channels), which cannot be trained"),
        ({"model.diffusion_model.joint_blocks.0.x_block.attn.proj.bias": (8,)}, "Stable Diffusion 3, which cannot be trained"),
        ({"double_blocks.0.img_attn.proj.bias": (8,)}, "FLUX, which cannot be trained"),
        ({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": (4, 8)}, "a LoRA or the like"),
        ({"unet.mid_block.attentions.0.proj_in.lora_A.weight": (4, 8)}, "a LoRA or the like"),
        ({"emb_params": (1, 768)}, "textual inversion"),
        ({"control_model.input_hint_block.0.bias": (8,)}, "a ControlNet"),
        ({"encoder.down.0.block.0.conv1.weight": (8, 8, 3, 3)}, "a VAE alone"),
        ({"down_blocks.0.resnets.0.conv1.weight": (8, 8, 3, 3)}, "a UNet alone"),
        ({"text_model.encoder.layers.0.mlp.fc1.bias": (8,)}, "a text encoder alone"),
        ({"something.else": (8,)}, "something unknown, with tensors named something.else"),
        ({UNET_IN: (8, 4, 3, 3)}, "missing or not complete"),
    ],
)
def test_other_architectures_in_one_file(tmp_path, shapes, words):
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, path)
    assert words in message(path)


def change_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(models, tmp_path):
    return shutil.copytree(models / "diffusers", tmp_path / "diffusers")


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "not complete, missing: text_encoder_2/config.json"),
        ("model_index.json", {"_class_name": "FluxPipeline"}, "FLUX, which cannot be trained"),
        ("model_index.json", {"_class_name": "OtherPipeline"}, "OtherPipeline is an architecture that is not known here"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "add v_parameterization = true"),
    ],
)
def test_other_architectures_in_a_folder(folder, file, changes, words):
    change_json(folder / file, **changes)
    assert words in message(folder)


def test_incomplete_folders(folder, models):
    (folder / "unet" / "config.json").unlink()
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(folder / "text_encoder")
    said = message(folder)
    assert all(part in said for part in ("unet/config.json", "vae/ weights", "text_encoder/config.json", "text_encoder/ weights"))
    (folder / "unet" / "config.json").write_text("{", encoding="utf-8")
    assert "config.json, line 1: not valid JSON" in message(folder)
    assert "it holds model.ckpt, model.safetensors: give the path of that file" in message(models)


def test_a_cut_off_part_of_a_folder(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in message(folder)


def test_options_that_do_not_fit(models):
    assert "delete v2" in message(models / "model.safetensors", v2=True)
    assert "has 2 layers" in message(models / "model.safetensors", clip_skip=3)
    assert identify(options(models / "model.safetensors", v_parameterization=True)).objective == "v"


def test_latent_scale_is_the_folders(folder):
    change_json(folder / "vae" / "config.json", scaling_factor=0.5)
    assert identify(options(folder)).latent_scale == 0.5


def test_single_file_without_a_part(models, tmp_path):
    from safetensors.torch import load_file

    state = load_file(models / "model.safetensors")
    path = tmp_path / "part.safetensors"
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("first_stage")}, path)
    assert "the vae of Stable Diffusion 1.x is missing or not complete: name another with the option vae" in message(path)
    assert identify(options(path, vae=str(models / "diffusers" / "vae"))).parameter_counts() == COUNTS
    save_file({name: tensor for name, tensor in state.items() if not name.startswith("cond_stage")}, path)
    assert "the text_encoder of Stable Diffusion 1.x is missing" in message(path)


def test_vae_mistakes(models, tmp_path):
    assert "vae: " in message(models / "model.safetensors", vae=str(tmp_path / "nothing.pt"))
    assert "no VAE in Diffusers layout" in message(models / "model.safetensors", vae=str(tmp_path))
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert "no Stable Diffusion VAE in this file" in message(models / "model.safetensors", vae=str(tmp_path / "a.safetensors"))
