"""Signed tokens: what was signed is read, every other text is refused."""
from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.storage.signing import BadToken, ExpiredToken, Grant, read, sign

SECRET = bytes(range(32))
GRANT = Grant("jobs/1/input.zip", "PUT", 2000, 12345)


@given(st.builds(Grant, st.text(), st.sampled_from(["PUT", "GET"]), st.integers(1, 2**40), st.integers(0, 2**50), st.text(max_size=99)))
def test_what_was_signed_is_read(grant: Grant) -> None:
    token = sign(grant, SECRET)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
    if len(token) <= 2048:
        assert read(token, SECRET, grant.expires - 1) == grant


def test_time_is_over_at_the_second() -> None:
    token = sign(GRANT, SECRET)
    assert read(token, SECRET, 1999.9) == GRANT
    with pytest.raises(ExpiredToken):
        read(token, SECRET, 2000)


def test_every_changed_letter_is_seen() -> None:
    token = sign(GRANT, SECRET)
    for place in range(len(token)):
        for letter in "AB.-":
            if token[place] != letter:
                with pytest.raises(BadToken):
                    read(token[:place] + letter + token[place + 1 :], SECRET, 0)
        with pytest.raises(BadToken):
            read(token[:place], SECRET, 0)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_other_spellings_of_the_same_bytes_are_no_tokens() -> None:
    token = sign(GRANT, SECRET)
    payload, _, signature = token.partition(".")
    last = signature[-1]  # the last letter of 32 bytes has two bits that mean nothing
    twins = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" if letter != last]
    for other in (*(f"{payload}.{signature[:-1]}{letter}" for letter in twins), token + "=", token + "\n", f"{payload}=.{signature}", f" {token}"):
        with pytest.raises(BadToken):
            read(other, SECRET, 0)


@given(st.text())
def test_any_text_is_refused(text: str) -> None:
    with pytest.raises(BadToken):
        read(text, SECRET, 0)


def test_another_secret_and_another_purpose_are_refused() -> None:
    payload = sign(GRANT, SECRET).partition(".")[0]
    for forged in (sign(GRANT, bytes(32)), f"{payload}.{encoded(hmac.new(SECRET, payload.encode(), hashlib.sha256).digest())}"):
        with pytest.raises(BadToken):
            read(forged, SECRET, 0)


def test_a_payload_of_another_version_is_refused_even_if_it_is_signed() -> None:
    for payload in ({"key": "a"}, [], "x", {**GRANT.__dict__, "more": 1}):
        text = encoded(json.dumps(payload).encode())
        with pytest.raises(BadToken):
            read(f"{text}.{encoded(hmac.new(SECRET, b'tadpole storage 1.' + text.encode(), hashlib.sha256).digest())}", SECRET, 0)
    assert read(sign(replace(GRANT, expires=9), SECRET), SECRET, 0).expires == 9
