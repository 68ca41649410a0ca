"""The board of predictions: whoever changes one does it here, by one conditional UPDATE, with its webhooks in the same transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from service.database.engine import RETURNED, Database
from service.database.tables import Model, Prediction
from service.identifiers import new_id
from service.keys import Caller
from service.problems import Problem, not_found
from service.webhooks.outbox import COMPLETED, OUTPUT, START, Outbox

STARTING, PROCESSING, SUCCEEDED, FAILED, CANCELED = "starting", "processing", "succeeded", "failed", "canceled"
FINAL = (SUCCEEDED, FAILED, CANCELED)
LEASE_SECONDS = 60.0
MOST_WAITING = 100  # predictions of a project
LONGEST_LOGS = 64 << 10  # characters

View = Callable[[Prediction], Mapping[str, Any]]


@dataclass(frozen=True)
class NewPrediction:
    """A picture to draw. `model`: owner/name."""

    version_id: str
    model_id: str
    model: str
    inputs: Mapping[str, Any]
    webhook: str | None = None
    webhook_events: Sequence[str] = field(default=())


class PredictionBoard:
    """What views and the worker do with predictions."""

    def __init__(self, database: Database, outbox: Outbox, clock: Callable[[], float] = time.time):
        self.clock = clock
        self._database, self._outbox = database, outbox
        self._view: View = plain_view

    def show(self, view: View) -> None:
        """How predictions look in their webhooks."""
        self._view = view

    # --- what views do ---

    def create(self, caller: Caller, new: NewPrediction) -> Prediction:
        """A prediction of the caller; the one that is there if the same request came before."""
        prediction = Prediction(
            id=new_id(), project_id=caller.project_id, version_id=new.version_id, model=new.model, state=STARTING,
            inputs=dict(new.inputs), output=None, logs="", error=None, webhook=new.webhook, webhook_events=list(new.webhook_events),
            created_at=self.clock(), idempotency_key=caller.idempotency_key,
        )  # fmt: skip
        try:
            with self._database.writing() as session:
                earlier = self._of_same_request(session, caller)
                if earlier is not None:
                    return earlier
                self._make_room(session, caller.project_id)
                session.add(prediction)
                counted = update(Model).where(Model.id == new.model_id).values(run_count=Model.run_count + 1)
                session.execute(counted, execution_options={"synchronize_session": False})
        except IntegrityError:  # the same request came twice at once
            with self._database.reading() as session:
                earlier = self._of_same_request(session, caller)
            if earlier is None:
                raise
            return earlier
        return prediction

    def _of_same_request(self, session: Session, caller: Caller) -> Prediction | None:
        if caller.idempotency_key is None:
            return None
        same = (Prediction.project_id == caller.project_id, Prediction.idempotency_key == caller.idempotency_key)
        return session.scalar(select(Prediction).where(*same))

    def _make_room(self, session: Session, project_id: str) -> None:
        waiting = select(Prediction.id).where(Prediction.project_id == project_id, Prediction.state == STARTING).limit(MOST_WAITING)
        if len(session.scalars(waiting).all()) >= MOST_WAITING:
            detail = f"{MOST_WAITING} predictions of this project wait already; ask again when some are done"
            raise Problem(429, "Too many predictions", detail, retry_after=10)

    def find(self, project_id: str, prediction_id: str) -> Prediction | None:
        with self._database.reading() as session:
            found = session.get(Prediction, prediction_id)
        return found if found is not None and found.project_id == project_id else None

    def get(self, project_id: str, prediction_id: str) -> Prediction:
        found = self.find(project_id, prediction_id)
        if found is None:
            raise not_found(f"prediction {prediction_id[:64]}")
        return found

    def cancel(self, project_id: str, prediction_id: str) -> Prediction:
        """At once; what draws it hears of it. Once more changes nothing, nor does it for one that is over."""
        mine = (Prediction.id == prediction_id, Prediction.project_id == project_id)
        self._over(CANCELED, {"error": "canceled"}, *mine, Prediction.state.in_((STARTING, PROCESSING)))
        return self.get(project_id, prediction_id)

    # --- what the worker does ---

    def claim(self, owner: str) -> Prediction | None:
        """The one that has waited longest; one whose worker is silent is drawn again."""
        now = self.clock()
        waiting = aliased(Prediction)
        candidate = select(waiting.id).where(_is_free(waiting, now)).order_by(waiting.created_at, waiting.id).limit(1)
        candidate = candidate.with_for_update(skip_locked=True, of=waiting)
        values = {"state": PROCESSING, "owner": owner, "lease_expires_at": now + LEASE_SECONDS, "started_at": now}
        taken = update(Prediction).where(Prediction.id == candidate.scalar_subquery(), _is_free(Prediction, now))
        with self._database.writing() as session:
            prediction = session.scalar(taken.values(**values).returning(Prediction), execution_options=RETURNED)
            if prediction is not None:
                self._tell(session, prediction, START)
            return prediction

    def keep(self, prediction: Prediction, owner: str) -> bool:
        """Have it for another while; False: it is not wanted any more, or somebody else's."""
        kept = update(Prediction).where(*_mine(prediction, owner)).values(lease_expires_at=self.clock() + LEASE_SECONDS)
        with self._database.writing() as session:
            return session.scalar(kept.returning(Prediction.id), execution_options=RETURNED) is not None

    def is_wanted(self, prediction: Prediction, owner: str) -> bool:
        with self._database.reading() as session:
            return session.scalar(select(Prediction.id).where(*_mine(prediction, owner))) is not None

    def finish(self, prediction: Prediction, owner: str, state: str, **values: Any) -> bool:
        """It is over: `output`, `logs`, `error`. False: it was over before, or somebody else's."""
        if "logs" in values:
            values["logs"] = values["logs"].replace("\0", "")[-LONGEST_LOGS:]
        return self._over(state, values, *_mine(prediction, owner))

    def release(self, owner: str) -> None:
        """What this worker has begun is drawn by whoever comes next."""
        mine = update(Prediction).where(Prediction.owner == owner, Prediction.state == PROCESSING)
        with self._database.writing() as session:
            session.execute(mine.values(lease_expires_at=None, owner=None), execution_options={"synchronize_session": False})

    def _over(self, state: str, values: Mapping[str, Any], *conditions: ColumnElement[bool]) -> bool:
        changes = {**values, "state": state, "completed_at": self.clock(), "lease_expires_at": None}
        with self._database.writing() as session:
            ended = update(Prediction).where(*conditions).values(**changes).returning(Prediction)
            prediction = session.scalar(ended, execution_options=RETURNED)
            if prediction is None:
                return False
            if prediction.output:
                self._tell(session, prediction, OUTPUT)
            self._tell(session, prediction, COMPLETED)
            return True

    def _tell(self, session: Session, prediction: Prediction, event: str) -> None:
        if prediction.webhook and event in prediction.webhook_events:
            self._outbox.add(
                session, project_id=prediction.project_id, subject_id=prediction.id, url=prediction.webhook, event=event,
                body=self._view(prediction),
            )  # fmt: skip


def _is_free(row: Any, now: float) -> ColumnElement[bool]:
    is_silent = or_(row.lease_expires_at.is_(None), row.lease_expires_at < now)
    return or_(row.state == STARTING, and_(row.state == PROCESSING, is_silent))


def _mine(prediction: Prediction, owner: str) -> tuple[ColumnElement[bool], ...]:
    return Prediction.id == prediction.id, Prediction.owner == owner, Prediction.state == PROCESSING


def plain_view(prediction: Prediction) -> dict[str, Any]:
    """Without the addresses that only the view knows."""
    return {"id": prediction.id, "status": prediction.state, "input": prediction.inputs, "error": prediction.error}
