"""Writes files of weights tensor by tensor, so that a model that is cast or renamed while it is saved is never held twice."""
from __future__ import annotations

import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SAFETENSORS_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
STORAGES = {
    torch.float64: torch.DoubleStorage, torch.float32: torch.FloatStorage, torch.float16: torch.HalfStorage,
    torch.bfloat16: torch.BFloat16Storage, torch.int64: torch.LongStorage, torch.int32: torch.IntStorage,
    torch.int16: torch.ShortStorage, torch.int8: torch.CharStorage, torch.uint8: torch.ByteStorage, torch.bool: torch.BoolStorage,
}  # fmt: skip
ALIGNMENT = 64  # bytes, of tensors in a PyTorch file, so that it can be mapped into memory
LOCAL_HEADER = 30  # bytes of a zip member's header without its name and extra field
PADDING_FIELD = b"FB"  # PyTorch's own mark of extra fields that only pad
LARGEST_MEMBER = 2**31 - 1  # bytes; a larger one needs a longer header


@dataclass(frozen=True)
class Outgoing:
    """A tensor that is made when its turn comes to be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]  # in this or another dtype, on any device

    @property
    def byte_count(self) -> int:
        return self.dtype.itemsize * self.element_count

    @property
    def element_count(self) -> int:
        return math.prod(self.shape)

    def content(self) -> memoryview:
        """The bytes, as they stand in the file."""
        tensor = self.make().detach().to("cpu", self.dtype).reshape(-1).contiguous()
        return tensor.view(torch.uint8).numpy().data


def outgoing(tensor: Tensor, dtype: torch.dtype | None) -> Outgoing:
    """A tensor, cast to `dtype` if it is of a floating type and `dtype` is given."""
    kept = dtype is None or not tensor.is_floating_point()
    return Outgoing(tuple(tensor.shape), tensor.dtype if kept or dtype is None else dtype, lambda: tensor)


def write_safetensors(path: Path, tensors: Mapping[str, Outgoing], metadata: Mapping[str, str]) -> None:
    """Writes a .safetensors file. The widest types come first, so that every tensor lies on a multiple of its width."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].byte_count
        header[name] = {
            "dtype": SAFETENSORS_NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(tensors[name].content())


def write_pickle(path: Path, content: Any) -> None:
    """Writes what torch.save would: dictionaries and the like, in which each Outgoing stands for its tensor."""
    buffer = BytesIO()
    pickler = _Pickler(buffer, protocol=2)
    pickler.dump(content)
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def write(name: str, data: bytes | memoryview) -> None:
            info = zipfile.ZipInfo(f"archive/{name}")
            padding = -(file.tell() + LOCAL_HEADER + len(info.filename) + 4) % ALIGNMENT
            info.extra = PADDING_FIELD + padding.to_bytes(2, "little") + bytes(padding)
            with archive.open(info, "w", force_zip64=len(data) > LARGEST_MEMBER) as member:
                member.write(data)

        write("data.pkl", buffer.getvalue())
        write("byteorder", b"little")
        for number, tensor in enumerate(pickler.tensors):
            write(f"data/{number}", tensor.content())
        write("version", b"3\n")


@dataclass(frozen=True)
class _Storage:
    """What PyTorch's format calls a storage: the numbers of one tensor, in a member of their own."""

    number: int
    tensor: Outgoing


class _Pickler(pickle.Pickler):
    """Leaves the tensors out and remembers them."""

    def __init__(self, file: BytesIO, protocol: int):
        super().__init__(file, protocol)
        self.tensors: list[Outgoing] = []

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Outgoing):
            return NotImplemented
        strides = torch.empty(value.shape, device="meta").stride()
        self.tensors.append(value)
        storage = _Storage(len(self.tensors) - 1, value)
        return torch._utils._rebuild_tensor_v2, (storage, 0, value.shape, strides, False, OrderedDict())

    def persistent_id(self, value: Any) -> Any:
        if not isinstance(value, _Storage):
            return None
        return "storage", STORAGES[value.tensor.dtype], str(value.number), "cpu", value.tensor.element_count
