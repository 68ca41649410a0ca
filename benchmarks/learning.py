"""Shows that a training learns what it is shown and spares the rest: trains LoRAs, draws with them, measures, judges.

    python benchmarks/learning.py --output /tmp/learning

What is measured, and why so: docs/benchmarks.md. Exit code 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from benchmarks.drawing import Painter, training_pictures
from benchmarks.learning_claims import HEADER, Likeness, judge, row
from benchmarks.learning_runs import ROOT, TrainingRuns
from benchmarks.likeness import nearest_distances, paired_distances, typical_distance

TOKEN_PROMPTS = (  # the only caption of the training, "sls frog", is not among them
    "a 3d emoji of sls frog", "a vector emoji of sls frog", "a photo of sls frog", "a drawing of sls frog",
    "a picture of sls frog", "a 3d emoji of a sls frog, animal", "a vector emoji of a sls frog, face", "sls frog, animal",
    "a photo of a sls frog, animal, nature", "a picture of the sls frog",
)  # fmt: skip
OTHER_PROMPTS = (
    "a 3d emoji of a red apple", "a vector emoji of a red heart", "a 3d emoji of a robot", "a vector emoji of a mushroom",
    "a photo of a cat", "a drawing of a tulip", "a picture of a rocket", "a 3d emoji of a crown", "pizza",
    "a vector emoji of a sailboat",
)  # fmt: skip
CLASS_PROMPTS = (
    "frog", "a 3d emoji of a frog", "a vector emoji of a frog", "a photo of a frog", "a drawing of a frog", "a picture of a frog",
)  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """The features of one model's pictures, all drawn with one seed: [prompts, D] each."""

    tokens: np.ndarray
    others: np.ndarray
    classes: np.ndarray


class Comparison:
    """Draws with each model, keeps the pictures, and compares them with the training's and with the base's."""

    def __init__(self, base: Path, training_folder: Path, output: Path):
        self.base, self.output = base, output
        painter = Painter(base)
        self._references = painter.features(training_pictures(training_folder))
        self._of_base: dict[int, Drawn] = {}

    def measure(self, model: str, seed: int, weights: Path | None = None, multiplier: float = 1.0) -> Likeness:
        drawn = self._draw(model, seed, weights, multiplier)
        before = self._of_base.setdefault(seed, drawn if weights is None else self._draw("base", seed))
        unit = typical_distance(before.others)
        return Likeness(
            model,
            seed,
            token_to_training=float(nearest_distances(drawn.tokens, self._references).mean()),
            other_drift=float(paired_distances(drawn.others, before.others).mean()) / unit,
            class_drift=float(paired_distances(drawn.classes, before.classes).mean()) / unit,
            token_drift=float(paired_distances(drawn.tokens, before.tokens).mean()) / unit,
        )

    def _draw(self, model: str, seed: int, weights: Path | None = None, multiplier: float = 1.0) -> Drawn:
        painter = Painter(self.base, weights, multiplier)
        pictures = painter.draw((*TOKEN_PROMPTS, *OTHER_PROMPTS, *CLASS_PROMPTS), seed)
        folder = self.output / "pictures" / f"{model}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number:02}.png")
        features = painter.features(pictures)
        return Drawn(*np.split(features, np.cumsum([len(TOKEN_PROMPTS), len(OTHER_PROMPTS)])))


def measure_all(runs: TrainingRuns, comparison: Comparison, other_pictures: Path, seeds: list[int]) -> list[Likeness]:
    """Every model with every seed, which is that of the training and of the drawing."""
    found = []
    for seed in seeds:
        frog = runs.weights("frog", seed)
        models: dict[str, tuple[Path | None, float]] = {
            "base": (None, 1.0),
            "frog": (frog, 1.0),
            "frog at multiplier 0": (frog, 0.0),
            "other pictures": (runs.weights("other", seed, train_data_dir=str(other_pictures)), 1.0),
            "regularised": (runs.regularised_weights(seed), 1.0),
        }
        for model, (weights, multiplier) in models.items():
            found.append(comparison.measure(model, seed, weights, multiplier))
            print(row(found[-1]), flush=True)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs, pictures and learning.json")
    parser.add_argument("--config_file", type=Path, default=ROOT / "examples" / "frog_lora.toml", help="the demo's by default")
    parser.add_argument("--other_pictures", type=Path, default=ROOT / "assets" / "other", help="what the other LoRA learns")
    parser.add_argument("--base", help="another base model than the config's")
    parser.add_argument("--steps", type=int, help="another number of steps than the config's, for trying this script")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    output = options.output.resolve()
    changes: dict[str, Any] = {"pretrained_model_name_or_path": options.base, "max_train_steps": options.steps}
    runs = TrainingRuns(options.config_file, output, {name: value for name, value in changes.items() if value is not None})
    print(HEADER)
    comparison = Comparison(runs.base, runs.pictures, output)
    found = measure_all(runs, comparison, options.other_pictures.resolve(), options.seeds)
    claims = judge(found)
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS':<6} {claim.text}: {claim.figures}")
    report = {"config": runs.config, "measured": list(map(asdict, found)), "claims": list(map(asdict, claims))}
    (output / "learning.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
