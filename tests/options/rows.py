"""A row of the table: an option, what is compared, and what is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.options.looks import Look, files_of_batches, noted, rates_to_come, said
from tests.options.looks_outside import asked_of_hub, told_to_wandb

CHEAP = (asked_of_hub, files_of_batches, noted, rates_to_come, said, told_to_wandb)  # looks for which no model is loaded

# What an option changes: what is worked out before a model is loaded; the batches; the loss of the model as it is; the bits of the
# model or of what is trained; names or contents of files; what a training tells; what it calls. Or: what it is refused for.
Observable = Literal["plan", "batch", "loss", "tensor", "file", "log", "call", "refusal"]


@dataclass(frozen=True)
class Row:
    """An option that is `given` a value, compared with the training where it has the value `against` (None: it is left out)."""

    option: str
    observable: Observable
    look: Look | str  # a text: of the refusal
    given: Any
    against: Any = None
    beside: Mapping[str, Any] = field(default_factory=dict)  # in both trainings
    company: Mapping[str, Any] = field(default_factory=dict)  # beside the given value alone
    scripts: Sequence[str] | None = None  # None: all that take the option

    @property
    def with_it(self) -> dict[str, Any]:
        return {**self.beside, **self.company, self.option: self.given}

    @property
    def without_it(self) -> dict[str, Any]:
        return {**self.beside, **({} if self.against is None else {self.option: self.against})}

    @property
    def needs_a_training(self) -> bool:
        """Whether more is made than a plan and batches."""
        return self.observable in ("tensor", "file", "log", "call") and self.look not in CHEAP

    def is_of(self, script: str) -> bool:
        return self.scripts is None or script in self.scripts

