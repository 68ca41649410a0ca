"""The states of a job, and which may follow which."""

from __future__ import annotations

CREATED, UPLOADING, QUEUED = "created", "uploading", "queued"
PREPARING, TRAINING, BUILDING, PUBLISHING = "preparing", "training", "building", "publishing"
SUCCEEDED, FAILED, CANCELED = "succeeded", "failed", "canceled"

BEFORE_START = (CREATED, UPLOADING)
STAGES = (PREPARING, TRAINING, BUILDING, PUBLISHING)  # a worker drives the job
FINAL = (SUCCEEDED, FAILED, CANCELED)
STATES = (*BEFORE_START, QUEUED, *STAGES, *FINAL)

NEXT: dict[str, tuple[str, ...]] = {
    CREATED: (UPLOADING, QUEUED, FAILED, CANCELED),
    UPLOADING: (QUEUED, FAILED, CANCELED),
    QUEUED: (PREPARING, FAILED, CANCELED),
    PREPARING: (TRAINING, FAILED, CANCELED),
    TRAINING: (BUILDING, FAILED, CANCELED),
    BUILDING: (PUBLISHING, FAILED, CANCELED),
    PUBLISHING: (SUCCEEDED, FAILED, CANCELED),
    SUCCEEDED: (),
    FAILED: (),
    CANCELED: (),
}


def may_follow(state: str, following: str) -> bool:
    return following in NEXT[state]
