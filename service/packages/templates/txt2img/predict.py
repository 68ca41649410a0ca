"""Draws what a prompt says, with the whole model that was trained."""

from typing import List, Optional

from cog import BasePredictor, Input, Path
from drawing import Painter

SIDES = [64, 128, 256, 384, 448, 512, 576, 640, 704, 768, 832, 896, 960, 1024]
SCHEDULERS = ["DDIM", "DPMSolverMultistep", "HeunDiscrete", "K_EULER_ANCESTRAL", "K_EULER", "KLMS", "PNDM", "UniPCMultistep"]


class Predictor(BasePredictor):
    def setup(self) -> None:
        """Reads the weights, once."""
        self.painter = Painter("text")

    def predict(
        self,
        prompt: str = Input(description="What to draw. (more), (much more:1.5) and [less] weigh words.", default="", max_length=1000),
        negative_prompt: str = Input(description="What not to draw, weighed likewise.", default="", max_length=1000),
        width: int = Input(description="In pixels. Width x height: 786432 at most.", default=512, choices=SIDES),
        height: int = Input(description="In pixels.", default=512, choices=SIDES),
        num_outputs: int = Input(description="How many pictures.", default=1, ge=1, le=10),
        num_inference_steps: int = Input(description="Steps of drawing.", default=50, ge=1, le=500),
        guidance_scale: float = Input(description="How closely the prompt is followed.", default=7.5, ge=1, le=20),
        scheduler: str = Input(description="What decides the steps.", default="DDIM", choices=SCHEDULERS),
        seed: Optional[int] = Input(description="The same seed, the same picture; random if left out.", default=None, ge=0, le=2147483647),
    ) -> List[Path]:
        """Draws, and tells the seed in the log."""
        inputs = {name: value for name, value in locals().items() if name != "self"}
        return [Path(path) for path in self.painter.paint(inputs)]
