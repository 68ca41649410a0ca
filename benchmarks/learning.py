"""Shows that every method learns what it is shown and spares the rest: trains, draws with what was learned, measures, judges.

    python benchmarks/learning.py --output /tmp/learning

What is measured, and why so: docs/benchmarks.md. Exit code 1 where a claim does not hold.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from benchmarks.drawing import Painter, training_pictures
from benchmarks.learning_claims import HEADER, Likeness, judge, row
from benchmarks.learning_runs import ROOT, Trained, Training, TrainingRuns
from benchmarks.likeness import nearest_distances, paired_distances, typical_distance

LORA = Training("lora", "train_network.py", "frog_lora.toml")
DREAMBOOTH = Training("dreambooth", "train_db.py", "frog_dreambooth.toml")
# What is measured, besides the base: a training, and with which multiplier its network is applied.
MODELS: dict[str, tuple[Training, float]] = {
    "LoRA": (LORA, 1.0),
    "LoRA at multiplier 0": (LORA, 0.0),
    "LoRA of other pictures": (replace(LORA, name="other", changes={"train_data_dir": "assets/other"}), 1.0),
    "LoRA, class pictures": (replace(LORA, name="lora_with_class", class_pictures=True), 1.0),
    "DreamBooth": (DREAMBOOTH, 1.0),
    "DreamBooth, class pictures": (
        # "sls frog" has to become another thing than "frog", which is what the text encoder learns.
        replace(
            DREAMBOOTH, name="dreambooth_with_class", class_pictures=True,
            changes={"learning_rate_te": 5e-4, "stop_text_encoder_training": 200},
        ),
        1.0,
    ),
    "fine-tuning": (Training("fine_tune", "fine_tune.py", "fine_tune.toml"), 1.0),
    "textual inversion": (Training("inversion", "train_textual_inversion.py", "frog_inversion.toml"), 1.0),
    "XTI": (Training("xti", "train_textual_inversion_XTI.py", "frog_inversion.toml"), 1.0),
    "pivotal tuning": (Training("pivotal", "train_network.py", "frog_pivotal.toml"), 1.0),
}
TOKEN = "sls frog"  # a new word stands in its place, where there is one that is not a part of it
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

    def __init__(self, base: Path, output: Path):
        self._base, self._output = base, output
        self._painter = Painter(base)
        self._references = self._painter.features(training_pictures(ROOT / "assets" / "frog"))
        self._of_base: dict[int, Drawn] = {}

    def measure_base(self, seed: int) -> Likeness:
        self._of_base[seed] = self._draw(self._painter, "base", seed, TOKEN)
        return self._likeness("base", seed, self._of_base[seed], 0.0)

    def measure(self, model: str, seed: int, trained: Trained, multiplier: float) -> Likeness:
        painter = Painter(self._base, replace(trained.learned, multiplier=multiplier))
        token = TOKEN if trained.word is None or trained.word in TOKEN else trained.word
        return self._likeness(model, seed, self._draw(painter, model, seed, token), trained.seconds)

    def _likeness(self, model: str, seed: int, drawn: Drawn, seconds: float) -> Likeness:
        before = self._of_base[seed]
        unit = typical_distance(before.others)
        return Likeness(
            model,
            seed,
            token_to_training=float(nearest_distances(drawn.tokens, self._references).mean()),
            other_drift=float(paired_distances(drawn.others, before.others).mean()) / unit,
            class_drift=float(paired_distances(drawn.classes, before.classes).mean()) / unit,
            token_drift=float(paired_distances(drawn.tokens, before.tokens).mean()) / unit,
            seconds=seconds,
        )

    def _draw(self, painter: Painter, model: str, seed: int, token: str) -> Drawn:
        tokens = [prompt.replace(TOKEN, token) for prompt in TOKEN_PROMPTS]
        pictures = painter.draw((*tokens, *OTHER_PROMPTS, *CLASS_PROMPTS), seed)
        folder = self._output / "pictures" / f"{model}-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            picture.save(folder / f"{number:02}.png")
        features = self._painter.features(pictures)
        return Drawn(*np.split(features, np.cumsum([len(TOKEN_PROMPTS), len(OTHER_PROMPTS)])))


def measure_all(runs: TrainingRuns, comparison: Comparison, models: list[str], seeds: list[int]) -> list[Likeness]:
    """Every model with every seed, which is that of the training and of the drawing."""
    found = []
    for seed in seeds:
        found.append(comparison.measure_base(seed))
        print(row(found[-1]), flush=True)
        for model in models:
            training, multiplier = MODELS[model]
            found.append(comparison.measure(model, seed, runs.run(training, seed), multiplier))
            print(row(found[-1]), flush=True)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for runs, pictures and learning.json")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--examples", type=Path, default=ROOT / "examples", help="folder with other configs of the same names")
    parser.add_argument("--base", type=Path, default=ROOT / "assets" / "base", help="another base model than the configs'")
    parser.add_argument("--steps", type=int, help="another number of steps than the configs', for trying this script")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    output, base = options.output.resolve(), options.base.resolve()
    changes = {"pretrained_model_name_or_path": str(base)} | ({"max_train_steps": options.steps} if options.steps else {})
    runs = TrainingRuns(options.examples, output, changes)
    print(HEADER)
    found = measure_all(runs, Comparison(base, output), options.models, options.seeds)
    claims = judge(found)
    for claim in claims:
        print(f"{'holds' if claim.holds else 'FAILS':<6} {claim.text}: {claim.figures}")
    configs = {model: runs.config(MODELS[model][0]) for model in options.models}
    report = {"configs": configs, "measured": list(map(asdict, found)), "claims": list(map(asdict, claims))}
    (output / "learning.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
