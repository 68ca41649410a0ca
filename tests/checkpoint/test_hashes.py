"""Hashes against their definitions."""
from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import save_file

from library.checkpoint.hashes import ModelHashes, adapter_hashes, model_hashes, model_name, short_model_hash

EMPTY = hashlib.sha256(b"").hexdigest()


def test_both_hashes_of_a_file(tmp_path: Path) -> None:
    content = bytes(range(251)) * 6000  # 1.5 MB
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    short = hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert model_hashes(path) == ModelHashes(short, hashlib.sha256(content).hexdigest())
    assert short_model_hash(path) == short


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"a")
    first = model_hashes(path)
    assert first is model_hashes(path)
    path.write_bytes(b"bb")
    assert model_hashes(path) == ModelHashes(EMPTY[:8], hashlib.sha256(b"bb").hexdigest())


def test_what_is_no_file(tmp_path: Path) -> None:
    assert model_hashes(tmp_path) == ModelHashes("IsADirectory", "IsADirectory")
    assert model_hashes(tmp_path / "nothing") is None
    assert short_model_hash(tmp_path) is None
    assert short_model_hash(tmp_path / "nothing") is None


def test_adapter_hashes_are_those_of_the_file_with_only_the_training_metadata(tmp_path: Path) -> None:
    tensors = {"b.weight": torch.arange(400_000, dtype=torch.float32), "a.alpha": torch.tensor(4.0)}
    kept = {"ss_network_dim": "4"}
    hashes = adapter_hashes(tensors, {**kept, "modelspec.title": "frog"})
    save_file(tensors, tmp_path / "a.safetensors", kept)
    blob = (tmp_path / "a.safetensors").read_bytes()
    header = int.from_bytes(blob[:8], "little")
    assert hashes == {
        "sshs_model_hash": hashlib.sha256(blob[8 + header :]).hexdigest(),
        "sshs_legacy_hash": hashlib.sha256(blob[0x100000:0x110000]).hexdigest()[:8],
    }


def test_the_model_hash_sees_the_precision_and_not_the_metadata() -> None:
    tensors = {"a": torch.ones(3, 3).T}
    assert adapter_hashes(tensors, {})["sshs_model_hash"] == adapter_hashes(tensors, {"ss_seed": "1"})["sshs_model_hash"]
    assert adapter_hashes(tensors, {}) != adapter_hashes({"a": tensors["a"].half()}, {})
    assert adapter_hashes(tensors, {})["sshs_legacy_hash"] == EMPTY[:8]  # a file that small has nothing there


def test_names_of_models(tmp_path: Path) -> None:
    assert model_name(str(tmp_path)) == tmp_path.name
    assert model_name("somebody/some-model") == "somebody/some-model"
