"""The best that a run has measured so far, as a state holds it."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Best:
    """The lowest validation loss, and how long ago that was."""

    measured: str  # fingerprint of what is measured, and how; losses of another are of no use
    loss: float | None = None  # None: nothing finite was measured yet
    step: int = 0
    rounds_since: int = 0  # measurements since then, none of them better
    last_step: int = 0  # after which was measured last

    def note(self, step: int, loss: float) -> bool:
        """A new measurement; whether it is the best. NaN never is."""
        self.last_step = step
        if loss < float("inf") and (self.loss is None or loss < self.loss):
            self.loss, self.step, self.rounds_since = loss, step, 0
            return True
        self.rounds_since += 1
        return False
