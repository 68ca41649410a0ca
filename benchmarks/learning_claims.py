"""What learning.py measures of each model, and what the figures must say for the claims to hold."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.likeness import Gain

# By the name of the model, as learning.py draws it.
LEARNING = (
    "LoRA", "LoRA, class pictures", "DreamBooth", "DreamBooth, class pictures", "fine-tuning", "textual inversion", "XTI",
    "pivotal tuning",
)  # fmt: skip
LEARNING_NOTHING = ("LoRA at multiplier 0", "LoRA of other pictures")
CHANGING_THE_MODEL = ("LoRA", "LoRA, class pictures", "DreamBooth", "DreamBooth, class pictures", "fine-tuning", "pivotal tuning")
ADDING_A_WORD = ("textual inversion", "XTI")  # the model stays as it is
# (what keeps the class word, what does not)
KEEPING_THE_CLASS = (
    ("LoRA, class pictures", "LoRA"),
    ("DreamBooth, class pictures", "DreamBooth"),
    ("pivotal tuning", "LoRA"),  # by prior_prediction
)
MOST_DRIFT = 0.5  # of the distance between the base's pictures of two things
NO_DRIFT = 0.01  # the same picture but for what rounding does


@dataclass(frozen=True)
class Likeness:
    """One model and one seed, means over the prompts."""

    model: str
    seed: int
    token_to_training: float  # pictures of prompts with the token: distance to the nearest training picture
    other_drift: float  # pictures of prompts without it: distance from the base's, 1 being the base's from one thing to another
    class_drift: float  # pictures of the class word: the same
    token_drift: float
    seconds: float  # that the training took


@dataclass(frozen=True)
class Claim:
    text: str
    figures: str
    holds: bool


HEADER = f"{'model':<27} seed   token to training   drift: token   others   class word   seconds"


def row(likeness: Likeness) -> str:
    return (
        f"{likeness.model:<27} {likeness.seed:>4} {likeness.token_to_training:>19.3f} {likeness.token_drift:>14.3f} "
        f"{likeness.other_drift:>8.3f} {likeness.class_drift:>12.3f} {likeness.seconds:>9.0f}"
    )


def judge(found: list[Likeness]) -> list[Claim]:
    """What the figures say of each claim about the models that were measured."""
    measured = {likeness.model for likeness in found}

    def of(model: str, field: str) -> list[float]:
        return [getattr(likeness, field) for likeness in found if likeness.model == model]

    def gain(model: str) -> Gain:
        return Gain.between(of("base", "token_to_training"), of(model, "token_to_training"))

    def drift(model: str, field: str, most: float, text: str) -> Claim:
        largest = max(of(model, field))
        return Claim(f"{model}: {text}", f"drift {largest:.3f}, at most {most}", largest <= most)

    claims = [Claim(f"{model} learns", str(gain(model)), gain(model).holds) for model in LEARNING if model in measured]
    claims += [Claim(f"{model} does not", str(gain(model)), not gain(model).holds) for model in LEARNING_NOTHING if model in measured]
    for model in filter(measured.__contains__, CHANGING_THE_MODEL):
        claims.append(drift(model, "other_drift", MOST_DRIFT, "prompts without the token stay where they were"))
    for model in filter(measured.__contains__, ADDING_A_WORD):
        claims.append(drift(model, "other_drift", NO_DRIFT, "prompts without the token are drawn as before"))
        claims.append(drift(model, "class_drift", NO_DRIFT, "the class word is drawn as before"))
    for keeping, other in KEEPING_THE_CLASS:
        if {keeping, other} <= measured:
            kept = Gain.between(of(other, "class_drift"), of(keeping, "class_drift"))
            claims.append(Claim(f"{keeping}: the class word is nearer to the base's than with {other}", str(kept), kept.holds))
    return claims
