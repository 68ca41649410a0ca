"""Files of weights written tensor by tensor: the libraries read them, and no two tensors are there at a time."""
from __future__ import annotations

import weakref
import zipfile

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from library.checkpoint.weights_file import Outgoing, outgoing, write_pickle, write_safetensors

TENSORS = {
    "matrix": torch.randn(3, 5),
    "half": torch.randn(7, 3).half(),
    "brain": torch.randn(2, 2, 3, 3).bfloat16(),
    "wide": torch.randn(2).double(),
    "scalar": torch.tensor(2.5),
    "ids": torch.arange(77)[None],
    "bytes": torch.arange(5, dtype=torch.uint8),
    "truth": torch.tensor([True, False, True]),
    "none": torch.zeros(0, 3),
    "ünïcode": torch.randn(2, 3).T,
}


def written(tmp_path, dtype=None):
    """The tensors as both kinds of file give them back."""
    going = {name: outgoing(tensor, dtype) for name, tensor in TENSORS.items()}
    write_safetensors(tmp_path / "a.safetensors", going, {"title": "frög"})
    write_pickle(tmp_path / "a.ckpt", {"state_dict": going, "epoch": 3})
    pickled = [torch.load(tmp_path / "a.ckpt", weights_only=True, mmap=mapped) for mapped in (False, True)]
    assert [content["epoch"] for content in pickled] == [3, 3]
    return [load_file(tmp_path / "a.safetensors"), *(content["state_dict"] for content in pickled)]


def test_the_libraries_read_every_type_and_shape(tmp_path):
    for state in written(tmp_path):
        assert state.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert state[name].dtype == tensor.dtype
            assert torch.equal(state[name], tensor)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"title": "frög"}
    assert zipfile.ZipFile(tmp_path / "a.ckpt").testzip() is None


def test_only_floating_numbers_are_cast(tmp_path):
    for state in written(tmp_path, torch.float16):
        for name, tensor in TENSORS.items():
            assert torch.equal(state[name], tensor.half() if tensor.is_floating_point() else tensor)
            assert state[name].dtype == (torch.float16 if tensor.is_floating_point() else tensor.dtype)


def test_tensors_lie_where_they_can_be_mapped(tmp_path):
    mapped = written(tmp_path)[2]
    assert {tensor.data_ptr() % 64 for tensor in mapped.values()} == {0}


def test_the_same_tensors_make_the_same_file(tmp_path):
    going = {name: outgoing(tensor, None) for name, tensor in TENSORS.items()}
    for number in (1, 2):
        write_safetensors(tmp_path / f"{number}.safetensors", going, {})
        write_pickle(tmp_path / f"{number}.ckpt", going)
    for suffix in ("safetensors", "ckpt"):
        assert (tmp_path / f"1.{suffix}").read_bytes() == (tmp_path / f"2.{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_one_tensor_is_held_at_a_time(tmp_path, suffix):
    made: list[weakref.ref] = []
    alive: list[int] = []

    def make():
        alive.append(sum(reference() is not None for reference in made))
        tensor = torch.ones(1000)
        made.append(weakref.ref(tensor))
        return tensor

    going = {f"tensor {number}": Outgoing((1000,), torch.float16, make) for number in range(5)}
    if suffix == "ckpt":
        write_pickle(tmp_path / "a.ckpt", {"state_dict": going})
    else:
        write_safetensors(tmp_path / "a.safetensors", going, {})
    assert alive == [0] * 5
