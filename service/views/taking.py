"""What the views have in common: inputs checked before anything is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from library.errors import UserError
from service.problems import FieldMistake, Problem, invalid
from service.services import Services
from service.training.fields import BadInput
from service.training.request import TrainingRequest
from service.training.resolved import ResolvedRequest

Read = Callable[[Mapping[str, object]], TrainingRequest]


def checked(services: Services, read: Read, inputs: Mapping[str, object], prefix: str = "") -> ResolvedRequest:
    """What the inputs mean here; a Problem with everything that is wrong with them, each named as the client knows it."""
    try:
        return services.workshop.resolve(read(inputs))
    except BadInput as error:
        raise of_bad_input(error, prefix) from None
    except UserError as error:
        raise Problem(503, "Base models unavailable", f"the operator's list of base models cannot be read: {error}") from None


def of_bad_input(error: BadInput, prefix: str = "") -> Problem:
    return invalid([FieldMistake(f"{prefix}{problem.field}", problem.message) for problem in error.problems])


def upload_limit(services: Services) -> int:
    """Bytes."""
    return services.settings.max_upload_mib << 20
