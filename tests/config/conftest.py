"""What the config tests share: writing files, and reading the mistakes that a call reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from library.config.load import load_settings
from library.config.settings import Settings
from library.errors import UserError


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def write_file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        return path

    return write_file


@pytest.fixture
def load() -> Callable[..., Settings]:
    def load_flags(*argv: object, script: str = "train_network.py") -> Settings:
        settings = load_settings(script, [str(word) for word in argv])
        assert settings is not None
        return settings

    return load_flags


@pytest.fixture
def mistakes() -> Callable[..., list[str]]:
    """Calls something that must raise UserError and returns its messages, each of one line."""

    def mistakes_of(call: Callable[..., Any], *arguments: Any) -> list[str]:
        with pytest.raises(UserError) as raised:
            call(*arguments)
        assert all(message and "\n" not in message for message in raised.value.messages)
        return list(raised.value.messages)

    return mistakes_of
