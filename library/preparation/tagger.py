"""A tagger in ONNX form, as published by SmilingWolf (WD14 and later) and cella110n (CL Tagger): its files, and running it."""
from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from library.config.text_files import read_json, read_text
from library.data.images import read_image, resize
from library.errors import UserError
from library.preparation.hub import fetch
from library.preparation.tag_text import BEST_OF, ORDER, Label

MODEL_FILE = "model.onnx"
WD_LABELS = "selected_tags.csv"
CL_LABELS = "tag_mapping.json"
CATEGORY_NUMBERS = {"0": "general", "1": "artist", "3": "copyright", "4": "character", "5": "meta", "9": "rating"}
USUAL_SIZE = 448  # pixels, of graphs that take any size
PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider")


class TaggerInput(NamedTuple):
    """An image as a tagger sees it, and the size (width, height) that it has."""

    pixels: np.ndarray
    size: tuple[int, int]


def tagger_folder(repo_id: str, model_dir: str, force_download: bool) -> Path:
    """The folder with the model: `model_dir` itself or the model's own folder in it, which is downloaded if it is not there.

    `repo_id` may go on below the model: owner/name/folder.
    """
    given = Path(model_dir)
    if not force_download and _is_complete(given):
        return given
    own = given / repo_id.replace("/", "_")
    parts = repo_id.split("/")
    model_id, below = "/".join(parts[:2]), "".join(f"{part}/" for part in parts[2:])
    folder = own / below
    if force_download or not _is_complete(folder):
        patterns = [below + file for file in (MODEL_FILE, f"{MODEL_FILE}.data", WD_LABELS, CL_LABELS)]
        fetch(model_id, "--repo_id", patterns, own, force_download)
        if not _is_complete(folder):
            raise UserError(f"--repo_id: {repo_id} is no ONNX tagger: it lacks {MODEL_FILE}, or {WD_LABELS} or {CL_LABELS}")
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / MODEL_FILE).is_file() and any((folder / labels).is_file() for labels in (WD_LABELS, CL_LABELS))


def read_labels(folder: Path) -> list[Label]:
    """The outputs of the tagger, in order."""
    path = folder / WD_LABELS
    try:
        labels = _wd_labels(path) if path.is_file() else _cl_labels(folder / CL_LABELS)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: the list of tags is not of a kind that is known here ({error!r})") from error
    unknown = {label.category for label in labels} - {*ORDER, *BEST_OF}
    if unknown:
        raise UserError(f"{folder}: the list of tags has categories that are not known here: {', '.join(sorted(unknown))}")
    return labels


def _wd_labels(path: Path) -> list[Label]:
    rows = csv.DictReader(io.StringIO(read_text(path, "list of tags")))
    return [Label(row["name"], CATEGORY_NUMBERS.get(row["category"], row["category"])) for row in rows]


def _cl_labels(path: Path) -> list[Label]:
    mapping = read_json(path, "list of tags")
    if "idx_to_tag" in mapping:
        categories = mapping["tag_to_category"]
        mapping = {index: {"tag": tag, "category": categories[tag]} for index, tag in mapping["idx_to_tag"].items()}
    rows = [mapping[index] for index in sorted(mapping, key=int)]
    return [Label(row["tag"], row["category"].lower()) for row in rows]


class Tagger:
    """A loaded tagger. `batch_size` is the number of images that its graph insists on, or None."""

    def __init__(self, folder: Path):
        self.labels = read_labels(folder)
        self._session = _open_session(folder / MODEL_FILE)
        graph_input = self._session.get_inputs()[0]
        self._input_name = graph_input.name
        batch, *sides = graph_input.shape
        self.batch_size = batch if isinstance(batch, int) and batch > 0 else None
        self._channels_first = sides[0] == 3
        side = sides[-1] if self._channels_first else sides[0]
        self._side = side if isinstance(side, int) and side > 0 else USUAL_SIZE
        self._says_logits = not (folder / WD_LABELS).is_file()
        self._folder = folder

    def load(self, path: Path) -> TaggerInput:
        """The image on a white square, blue first: 0..255 channels last (WD), or -1..1 channels first (CL)."""
        image = read_image(str(path))
        height, width = image.shape[:2]
        long_side = max(height, width)
        square = np.full((long_side, long_side, 3), 255, np.uint8)
        top, left = (long_side - height) // 2, (long_side - width) // 2
        square[top : top + height, left : left + width] = image
        pixels = resize(square, (self._side, self._side))[..., ::-1].astype(np.float32)
        if self._channels_first:
            pixels = pixels.transpose(2, 0, 1) / 127.5 - 1
        return TaggerInput(np.ascontiguousarray(pixels), (width, height))

    def probabilities(self, images: list[TaggerInput]) -> np.ndarray:
        """[images, labels]"""
        batch = np.stack([image.pixels for image in images])
        if self.batch_size is not None:
            missing = self.batch_size - len(batch)
            batch = np.concatenate([batch, np.zeros((missing, *batch.shape[1:]), np.float32)])
        (outputs, *_) = self._session.run(None, {self._input_name: batch})
        if outputs.ndim != 2 or outputs.shape[1] != len(self.labels):
            found = "x".join(map(str, outputs.shape[1:]))
            raise UserError(f"{self._folder}: the model has {found} outputs, its list of tags {len(self.labels)}")
        scores = outputs[: len(images)].astype(np.float32)
        return 1 / (1 + np.exp(-scores)) if self._says_logits else scores


def _open_session(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("the tagger needs onnxruntime: pip install onnxruntime (or onnxruntime-gpu)") from None
    available = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), providers=available)
    except Exception as error:  # onnxruntime's errors have no common class
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path}: this model cannot be loaded ({reason}); --force_download fetches it anew") from error
