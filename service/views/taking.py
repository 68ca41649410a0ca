"""What the views have in common: inputs checked before anything is made, requests that came twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence

from library.errors import UserError
from service.database.tables import Job
from service.keys import Caller
from service.problems import FieldMistake, Problem, invalid
from service.services import Services
from service.training.fields import BadInput
from service.training.request import TrainingRequest
from service.training.resolved import ResolvedRequest

Read = Callable[[Mapping[str, object]], TrainingRequest]
TWINS_LOOKED_AT = 50  # jobs of the project, the newest


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


def digest_of(*parts: object) -> str:
    """The same for the same request."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def twin(services: Services, caller: Caller, apis: Sequence[str], digest: str, seconds: float) -> Job | None:
    """The job that the same request of the same key made a moment ago: its answer was lost on the way."""
    since = services.board.clock() - seconds
    recent = services.board.page(caller.project_id, apis=apis, limit=TWINS_LOOKED_AT).rows
    same = (job for job in recent if job.key_id == caller.key_id and job.details.get("request_digest") == digest)
    return next((job for job in same if job.created_at >= since), None)


def upload_limit(services: Services) -> int:
    """Bytes."""
    return services.settings.max_upload_mib << 20
