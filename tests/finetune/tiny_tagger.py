"""ONNX taggers that see colours: a label's probability is how much of the picture has its colour."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 16
# name, category number, weights of blue, green and red, constant
LABELS = [
    ("general", 9, (0, 0, 0), 0.6),
    ("sensitive", 9, (0, 0, 1), 0.0),
    ("red_thing", 0, (0, 0, 1), 0.0),
    ("green_thing", 0, (0, 1, 0), 0.0),
    ("blue_thing", 0, (1, 0, 0), 0.0),
    ("hero_(series)", 4, (0, 0, 0.5), 0.0),
]
CL_CATEGORIES = {9: "Rating", 0: "General", 4: "Character"}
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def wd_tagger(folder: Path, batch: int | str = "batch", side: int | str = SIDE) -> Path:
    """Channels last, 0..255, blue first; says probabilities."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["tag_id,name,category,count", *(f"{i},{name},{number},1" for i, (name, number, *_) in enumerate(LABELS))]
    (folder / "selected_tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    _save(folder, [batch, side, side, 3], axes=[1, 2], scale=1 / 255, offset=0.0, logits=False)
    return folder


def cl_tagger(folder: Path) -> Path:
    """Channels first, -1..1, blue first; says logits."""
    folder.mkdir(parents=True, exist_ok=True)
    mapping = {str(i): {"tag": name, "category": CL_CATEGORIES[number]} for i, (name, number, *_) in enumerate(LABELS)}
    (folder / "tag_mapping.json").write_text(json.dumps(mapping), encoding="utf-8")
    _save(folder, ["batch", 3, SIDE, SIDE], axes=[2, 3], scale=0.5, offset=0.5, logits=True)
    return folder


def _save(folder: Path, shape: list[int | str], axes: list[int], scale: float, offset: float, logits: bool) -> None:
    weights = np.array([weights for _, _, weights, _ in LABELS], np.float32).T
    constants = np.array([constant for *_, constant in LABELS], np.float32)
    if logits:  # 12 p - 6: the order stays, and 0.5 is 0.5
        weights, constants = weights * 12, constants * 12 - 6
    values = {"scale": np.float32(scale), "offset": np.float32(offset), "weights": weights, "constants": constants}
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=axes, keepdims=0),
        helper.make_node("Mul", ["mean", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "offset"], ["share"]),
        helper.make_node("MatMul", ["share", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "constants"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [shape[0], len(LABELS)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "model.onnx")


def colour_images(folder: Path, *names: str, size: tuple[int, int] = (20, 20)) -> Path:
    """Pictures of one colour, which their name begins with: red1.png."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = next(value for colour, value in COLOURS.items() if path.name.startswith(colour))
        Image.new("RGB", size, colour).save(path)
    return folder
