"""What learning.py measures of each model, and what the figures must say for the claims to hold."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.likeness import Gain

MOST_DRIFT = 0.5  # of the distance between the base's pictures of two things


@dataclass(frozen=True)
class Likeness:
    """One model and one seed, means over the prompts."""

    model: str
    seed: int
    token_to_training: float  # pictures of prompts with the token: distance to the nearest training picture
    other_drift: float  # pictures of prompts without it: distance from the base's, 1 being the base's from one thing to another
    class_drift: float  # pictures of the class word: the same
    token_drift: float


@dataclass(frozen=True)
class Claim:
    text: str
    figures: str
    holds: bool


HEADER = f"{'model':<22} seed   token to training   drift: token   others   class word"


def row(likeness: Likeness) -> str:
    return (
        f"{likeness.model:<22} {likeness.seed:>4} {likeness.token_to_training:>19.3f} {likeness.token_drift:>14.3f} "
        f"{likeness.other_drift:>8.3f} {likeness.class_drift:>12.3f}"
    )


def judge(found: list[Likeness]) -> list[Claim]:
    """What the figures say of each claim."""

    def of(model: str, field: str) -> list[float]:
        return [getattr(likeness, field) for likeness in found if likeness.model == model]

    def gain(model: str) -> Gain:
        return Gain.between(of("base", "token_to_training"), of(model, "token_to_training"))

    learnt, nothing, other, regularised = map(gain, ("frog", "frog at multiplier 0", "other pictures", "regularised"))
    drift = max(of("frog", "other_drift"))
    kept = Gain.between(of("frog", "class_drift"), of("regularised", "class_drift"))
    return [
        Claim("pictures of the token are nearer to the training's than the base's", str(learnt), learnt.holds),
        Claim("the measure fails for the same LoRA at multiplier 0", str(nothing), not nothing.holds),
        Claim("the measure fails for a LoRA trained on other pictures", str(other), not other.holds),
        Claim("prompts without the token stay where they were", f"drift {drift:.3f}, at most {MOST_DRIFT}", drift <= MOST_DRIFT),
        Claim("regularisation keeps the class word nearer to the base's", str(kept), kept.holds),
        Claim("and the token is learnt all the same", str(regularised), regularised.holds),
    ]
