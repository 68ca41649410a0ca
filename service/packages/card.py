"""The model card: what a version is, what it takes, and a request that can be copied."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN = ("model", "revision", "method", "max_train_steps", "num_train_epochs", "learning_rate", "resolution", "train_batch_size", "seed")


def card_of(
    name: str, version: str, description: str, template: str, inputs: Mapping[str, Any], used: Mapping[str, Any]
) -> dict[str, Any]:
    """`used`: the resolved request of the training. Addresses are not in it: the service may move."""
    prompt = used.get("sample_prompt") or used.get("instance_prompt") or ""
    size = used.get("resolution")
    sample: dict[str, Any] = {"prompt": prompt}
    for side in ("width", "height"):
        if size in inputs.get("properties", {}).get(side, {}).get("enum", ()):
            sample[side] = size
    return {
        "name": name,
        "version": version,
        "desc": description,
        "template": template,
        "instance_prompt": used.get("instance_prompt"),
        "class_prompt": used.get("class_prompt"),
        "inputs": dict(inputs),
        "sampleRequest": {"input": sample},
        "training": {key: used[key] for key in SHOWN if used.get(key) is not None},
    }


@dataclass(frozen=True)
class CardLinks:
    """Links to cards for those who have no key: who has the link may read the card, and nothing else."""

    url: str  # of the service
    secret: bytes

    def link(self, project_id: str, version_id: str) -> str:
        return f"{self.url}/cards/{version_id}?token={self.token(project_id, version_id)}"

    def token(self, project_id: str, version_id: str) -> str:
        text = f"tadpole card 1.{project_id}.{version_id}"  # so that no signature of another part of the service fits
        return hmac.new(self.secret, text.encode(), hashlib.sha256).hexdigest()

    def fits(self, token: str, project_id: str, version_id: str) -> bool:
        return hmac.compare_digest(self.token(project_id, version_id).encode(), token.encode())
