"""Names that cannot be guessed, and times as clients read them."""

from __future__ import annotations

import secrets
import string
from datetime import datetime, timezone

BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
BASE62 = string.ascii_letters + string.digits


def new_id(length: int = 26) -> str:
    """Lower-case letters and digits: good in URLs, in file names, and in the names of Slurm's jobs."""
    return "".join(secrets.choice(BASE32) for _ in range(length))


def new_secret(length: int) -> str:
    return "".join(secrets.choice(BASE62) for _ in range(length))


def iso(seconds: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 in UTC, with microseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds").replace("+00:00", "Z")
