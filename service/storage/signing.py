"""Signed grants: what one URL may do, to which key, until when; whoever changes a letter of it has nothing."""
from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass, fields

LONGEST_TOKEN = 2048  # characters; what is longer was not made here
_PURPOSE = b"tadpole storage 1."  # so that no signature of another part of the service fits


@dataclass(frozen=True)
class Grant:
    """One method on one key until a moment (Unix seconds). PUT has a cap; GET may name the downloaded file."""

    key: str
    method: str
    expires: int
    max_bytes: int = 0
    file_name: str = ""


class BadToken(Exception):
    """The token was not made with this secret."""


class ExpiredToken(Exception):
    """The token was right, and its time is over."""


def sign(grant: Grant, secret: bytes) -> str:
    """The grant as a token: its JSON and its HMAC-SHA256, both in URL-safe base64, joined by a dot."""
    payload = _encode(json.dumps(asdict(grant), separators=(",", ":"), ensure_ascii=False).encode())
    return f"{payload}.{_encode(_signature(payload, secret))}"


def read(token: str, secret: bytes, now: float) -> Grant:
    """The grant of a token. Raises BadToken, or ExpiredToken where only the time is wrong."""
    payload, dot, signature = token.partition(".")
    if not dot or len(token) > LONGEST_TOKEN or not token.isascii():
        raise BadToken
    # The text is compared, not the bytes that it stands for: base64 has several spellings for some.
    if not hmac.compare_digest(_encode(_signature(payload, secret)), signature):
        raise BadToken
    grant = _grant(payload)
    if grant.expires <= now:
        raise ExpiredToken
    return grant


def _grant(payload: str) -> Grant:
    """A signed payload; one of another version of the service may have other fields."""
    try:
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (binascii.Error, ValueError):
        raise BadToken from None
    if not isinstance(found, dict) or found.keys() != {field.name for field in fields(Grant)}:
        raise BadToken
    return Grant(**found)


def _signature(payload: str, secret: bytes) -> bytes:
    return hmac.new(secret, _PURPOSE + payload.encode(), hashlib.sha256).digest()


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
