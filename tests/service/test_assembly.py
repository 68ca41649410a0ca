"""The settings become parts, or a line says what is wrong with them."""
from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path
from threading import Thread

import pytest

from library.errors import UserError
from service.assembly import address_rules, make_store, read_secret
from service.settings import ServiceSettings


def test_the_secret_is_made_once(tmp_path: Path) -> None:
    path, found = tmp_path / "data/secret", []
    threads = [Thread(target=lambda: found.append(read_secret(path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {read_secret(path)}
    assert len(found[0]) == 32
    assert [entry.name for entry in path.parent.iterdir()] == ["secret"]
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"allow_ports": ("http",)}, "setting allow_ports: write numbers, not http"),
        ({"allow_private_nets": ("10.0.0.1/8",)}, "setting allow_private_nets: 10.0.0.1/8 has host bits set; write networks"),
    ],
)
def test_addresses_that_are_none(values: dict[str, tuple[str, ...]], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        address_rules(dataclasses.replace(ServiceSettings(data_dir=tmp_path), **values))


def test_what_is_allowed_is_allowed(tmp_path: Path) -> None:
    settings = ServiceSettings(data_dir=tmp_path, allow_http=True, allow_ports=("8080",), allow_private_nets=("127.0.0.0/8",))
    rules = address_rules(settings)
    assert (rules.allow_http, rules.ports, [str(network) for network in rules.allow_private_nets]) == (True, (80, 443, 8080), ["127.0.0.0/8"])


def test_a_store_that_is_no_bucket(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="setting store: 'gs://x' names no bucket"):
        make_store(ServiceSettings(data_dir=tmp_path, store="gs://x"))
