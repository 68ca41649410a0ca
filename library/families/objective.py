"""Whether a model predicts the noise or v: what it says of itself against what the options say."""
from __future__ import annotations

from typing import TYPE_CHECKING

from library.errors import UserError
from library.families.base import Objective
from library.families.source import ModelSource

if TYPE_CHECKING:
    from library.config.options.model import ModelOptions

PREDICTION_TYPES: dict[Objective, str] = {"epsilon": "epsilon", "v": "v_prediction"}  # as Diffusers calls them


def objective_of(source: ModelSource, options: ModelOptions) -> Objective:
    """What the model is trained to predict. UserError if the option contradicts the model.

    A single file's metadata tell what it was trained on, and such models are trained on to predict v: there the option decides.
    """
    if source.prediction_type == "v_prediction" and not options.v_parameterization:
        raise UserError(f"{source.path}: this model says that it predicts v: add v_parameterization = true")
    if source.prediction_type == "epsilon" and options.v_parameterization and source.scheduler_file is not None:
        raise UserError(
            f"{source.scheduler_file}: v_parameterization = true, but this model says that it predicts the noise: delete "
            'v_parameterization, or write "prediction_type": "v_prediction" there to train it to predict v'
        )
    return "v" if options.v_parameterization else "epsilon"
