"""Weights come out of a pickle in portions, so that a mapped file never stands in memory as a whole."""
from __future__ import annotations

import pytest
import torch

from library.families import weight_files

TENSORS = {f"layer{number}": torch.full((10, number + 1), float(number)) for number in range(6)}  # 40 to 240 bytes


@pytest.fixture
def opened(monkeypatch):
    """The names that are read at each opening."""
    portions = []
    real = weight_files._portions

    def noting(sizes):
        for portion in real(sizes):
            portions.append(portion)
            yield portion

    monkeypatch.setattr(weight_files, "BYTES_AT_A_TIME", 250)
    monkeypatch.setattr(weight_files, "_portions", noting)
    return portions


@pytest.mark.parametrize("is_mapped", [True, False])
def test_wanted_tensors_in_portions(tmp_path, opened, is_mapped):
    """Files of PyTorch before 1.6 cannot be mapped, and are read once."""
    file = tmp_path / "a.ckpt"
    torch.save({"state_dict": TENSORS}, file, _use_new_zipfile_serialization=is_mapped)
    wanted = [name for name in TENSORS if name != "layer3"]
    found = dict(weight_files.stored_tensors((file,), wanted))
    assert found.keys() == set(wanted)
    assert all(torch.equal(found[name], TENSORS[name]) for name in wanted)
    sizes = [sum(TENSORS[name].nbytes for name in portion) for portion in opened]
    assert sizes == ([240, 200, 240] if is_mapped else [680])


def test_a_tensor_above_the_bound_is_a_portion_of_its_own(opened):
    assert list(weight_files._portions({"a": 10, "b": 900, "c": 10, "d": 10})) == [["a"], ["b"], ["c", "d"]]
