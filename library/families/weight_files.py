"""Files of weights: names and shapes without reading weights, then the weights tensor by tensor. Pickles never run code."""
from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from library.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
PICKLE_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin")
WEIGHT_SUFFIXES = (".safetensors", *PICKLE_SUFFIXES)
LARGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format
HEADER_LENGTH_BYTES = 8  # of a safetensors file; they say how long its header is
TENSORS_AT_A_TIME = 16
BYTES_AT_A_TIME = 2**27
WRAPPERS = ("state_dict", "string_to_param")  # tables that programs put around the tensors


def read_shapes(path: Path) -> Shapes:
    """The shape of every tensor in the file, by name. UserError if the file is not whole, or not one of weights."""
    _check_present(path)
    if path.suffix.lower() == ".safetensors":
        return _safetensors_shapes(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return {name: tuple(tensor.shape) for name, tensor in _unpickled(path).items()}
    raise UserError(f"{path}: not a file of weights: the name must end in one of {', '.join(WEIGHT_SUFFIXES)}")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a file of weights holds beside its tensors."""
    if path.suffix.lower() != ".safetensors":
        texts = read_beside(path).get("metadata")
        return texts if isinstance(texts, dict) else {}
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return file.metadata() or {}


def read_beside(path: Path) -> dict[str, Any]:
    """What a PyTorch file holds beside its tensors, such as `epoch`. Files of PyTorch before 1.6 would have to be read whole."""
    if not zipfile.is_zipfile(path):
        return {}
    content = _content(path)
    return {name: value for name, value in content.items() if name != "state_dict"} if isinstance(content, dict) else {}


def stored_tensors(paths: tuple[Path, ...], names: Iterable[str], mapped: bool = True) -> Iterator[tuple[str, Tensor]]:
    """Each of these tensors, with its name. Copy what is kept: they lie in the mapped file, however its layout aligned them.

    mapped: false to read .safetensors files instead, one tensor after the other.
    """
    wanted = set(names)
    for path in paths:
        if path.suffix.lower() != ".safetensors":
            yield from _unpickled_in_portions(path, wanted)
            continue
        if not mapped:
            yield from _read_in_order(path, wanted)
            continue
        from safetensors import safe_open

        with safe_open(path, framework="pt", device="cpu") as file:
            stored = file.keys()
        here = [name for name in stored if name in wanted]
        # Mapped pages count as used memory until the file is closed: a few tensors at a time, a checkpoint is never held twice.
        for start in range(0, len(here), TENSORS_AT_A_TIME):
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in here[start : start + TENSORS_AT_A_TIME]:
                    yield name, file.get_tensor(name)


def _read_in_order(path: Path, wanted: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a .safetensors file, each read when it is asked for, in the order in which they lie there."""
    from safetensors.torch import load

    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
        header: dict[str, Any] = json.loads(file.read(length))
        for name in sorted(wanted & header.keys(), key=lambda name: header[name]["data_offsets"]):
            begin, end = header[name]["data_offsets"]
            file.seek(HEADER_LENGTH_BYTES + length + begin)
            alone = json.dumps({name: header[name] | {"data_offsets": [0, end - begin]}}).encode()
            yield from load(len(alone).to_bytes(HEADER_LENGTH_BYTES, "little") + alone + file.read(end - begin)).items()


def _unpickled_in_portions(path: Path, wanted: set[str]) -> Iterator[tuple[str, Tensor]]:
    """The same for pickles. Those of PyTorch before 1.6 cannot be mapped: they are read once, as a whole."""
    is_mapped = zipfile.is_zipfile(path)
    content = _unpickled(path)
    sizes = {name: tensor.nbytes if is_mapped else 0 for name, tensor in content.items() if name in wanted}
    for number, portion in enumerate(_portions(sizes)):
        if number:
            content = _unpickled(path)  # again, for what was mapped counts as used memory until it is let go
        yield from ((name, content[name]) for name in portion)


def _portions(sizes: dict[str, int]) -> Iterator[list[str]]:
    """The names of tensors of these sizes, in lists that together hold about BYTES_AT_A_TIME."""
    portion: list[str] = []
    room = BYTES_AT_A_TIME
    for name, size in sizes.items():
        if portion and size > room:
            yield portion
            portion, room = [], BYTES_AT_A_TIME
        portion.append(name)
        room -= size
    if portion:
        yield portion


def tensor_reader(path: Path) -> Callable[[str], Tensor]:
    """Gives tensors of the file by name, one at a time. They lie in the mapped file."""
    if path.suffix.lower() != ".safetensors":
        return _unpickled(path).__getitem__
    from safetensors import safe_open

    def read(name: str) -> Tensor:
        with safe_open(path, framework="pt", device="cpu") as file:
            return file.get_tensor(name)

    return read


def _check_present(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read: {error.strerror or error}") from error
    if empty:
        raise UserError(f"{path}: the file is empty (0 bytes): copy or download it again")


def _safetensors_shapes(path: Path) -> Shapes:
    from safetensors import SafetensorError, safe_open

    _check_safetensors_length(path)
    try:
        with safe_open(path, framework="numpy") as handle:
            names = handle.keys()
            return {name: tuple(handle.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise UserError(f"{path}: the file is damaged or cut off ({error}): copy or download it again") from error


def _check_safetensors_length(path: Path) -> None:
    """The two mistakes that deserve their own words: a file of another kind, and a download that stopped in the header."""
    with path.open("rb") as file:
        start = file.read(9)
    header = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
    if len(start) == 9 and start[8:] == b"{" and header <= LARGEST_HEADER:
        if path.stat().st_size < header + 8:
            raise UserError(f"{path}: the file is cut off within its header: copy or download it again")
        return
    hint = ": download it again, or name another file"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        hint = ": it is a PyTorch pickle, give it a name that ends in .ckpt"
    elif start[:1] in (b"<", b"v"):
        hint = ": it is text, perhaps a web page or a Git LFS pointer that was saved in its place: download it again"
    raise UserError(f"{path}: not a safetensors file{hint}")


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch file."""
    import torch

    content = _content(path)
    while isinstance(content, dict) and (inner := [content[name] for name in WRAPPERS if isinstance(content.get(name), dict)]):
        content = inner[0]
    if not isinstance(content, dict):
        raise UserError(f"{path}: the pickle holds a {type(content).__name__}, not a dictionary of weights")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, torch.Tensor)}


def _content(path: Path) -> Any:
    """A PyTorch file, mapped into memory and not read, through `weights_only`, which refuses to run any code."""
    import torch

    zipped = zipfile.is_zipfile(path)  # files of PyTorch before 1.6 are not, and cannot be mapped
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK" and not zipped:
        raise UserError(f"{path}: the file is cut off or damaged: copy or download it again")
    if start != b"PK" and start[:1] != b"\x80":
        raise UserError(f"{path}: not a PyTorch file, whatever its name says: download it again, or give the right file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols: what cannot be read is refused below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: the file is damaged or cut off ({reason}): copy or download it again") from error


def _refusal(path: Path, error: str) -> str:
    """Why `weights_only` would not load a pickle; torch's own text is long and advises to load it regardless."""
    found = re.search(r"GLOBAL (\S+)", error)
    what = f"would call {found[1].rstrip('.,')} while loading" if found else "holds more than weights, and could run code"
    return f"{path}: refused: this pickle {what}: use a .safetensors file, from a source that you trust"
