"""Options about measuring a run by pictures that are held out of training."""

from __future__ import annotations

from dataclasses import dataclass

from library.config.declare import option


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """When held-out pictures (validation_split) are measured, and what follows from it."""

    validate_every_n_epochs: int | None = option(
        None, "Measure held-out pictures after every n-th epoch, and at the end; left out: after every epoch.", least=1
    )
    validate_every_n_steps: int | None = option(None, "Measure them after every n-th step as well.", least=1)
    max_validation_steps: int | None = option(None, "Measure this many batches of them only.", least=1)
    save_best: bool = option(False, "Keep the weights that measured best in <output_name>-best.")
    early_stopping_patience: int | None = option(
        None, "End the run when this many measurements in a row were no better than the best before.", least=1
    )
