"""Uploads with the hub's real library against a local server: what arrives, what a fault does, what must not be told."""
from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import _http

from library.checkpoint.hub import Hub, check_hub, fetch_state
from library.checkpoint.uploads import Uploads, start_uploads
from library.config.options import HubOptions
from library.errors import UserError
from tests.fake_hub import FakeHub

TOKEN = "hf_hunter2hunter2"
CLOSED_DOOR = "http://127.0.0.1:9"  # where nobody answers


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub("me/toads") as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # a protocol of its own; LFS is the other
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)  # the library's own patience
        yield server


class Reports:
    """What is reported."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))

    @property
    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def uploads(reports: Reports, wants_stop: bool = False, **options: Any) -> Uploads:
    options = {"huggingface_repo_id": "me/toads", "huggingface_token": TOKEN, **options}
    made = start_uploads(HubOptions(**options), reports, lambda: wants_stop)
    assert made is not None
    made.pauses = (0.0, 0.0, 0.0)
    return made


def weights(folder: Path, name: str = "toad.safetensors", content: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def state(folder: Path) -> Path:
    weights(folder / "toad-state", "model.safetensors", b"tensors")
    weights(folder / "toad-state", "train_state.json", b"{}")
    return folder / "toad-state"


@pytest.mark.parametrize(
    ("folder", "prefix"), [(None, ""), ("runs/one", "runs/one/"), ("/runs/", "runs/")], ids=["top", "folder", "slashes"]
)
def test_files_and_state_folders_arrive_under_their_own_names(tmp_path: Path, hub: FakeHub, folder: str | None, prefix: str) -> None:
    reports = Reports()
    made = uploads(reports, huggingface_path_in_repo=folder)
    made.add(weights(tmp_path))
    made.add(state(tmp_path))
    made.wait()
    assert hub.files == {
        f"{prefix}toad.safetensors": b"weights",
        f"{prefix}toad-state/model.safetensors": b"tensors",
        f"{prefix}toad-state/train_state.json": b"{}",
    }
    assert reports.names == ["uploaded", "uploaded"]
    assert reports.events[0][1]["place"] == f"{prefix}toad.safetensors"
    assert f"Bearer {TOKEN}" in hub.tokens
    assert not made.needs(tmp_path / "toad.safetensors")


@pytest.mark.parametrize(("visibility", "private"), [(None, True), ("private", True), ("public", False)])
def test_a_repository_is_made_private_unless_told_otherwise(hub: FakeHub, visibility: str | None, private: bool) -> None:
    uploads(Reports(), huggingface_repo_visibility=visibility)
    (asked,) = hub.created
    assert asked.get("private", asked.get("visibility") == "private") is private


def test_two_faults_and_then_it_works(tmp_path: Path, hub: FakeHub) -> None:
    reports = Reports()
    made = uploads(reports)
    hub.faults["/commit/"] = [500, 500]
    made.add(weights(tmp_path))
    made.wait()
    assert hub.files == {"toad.safetensors": b"weights"}
    assert reports.names[-1] == "uploaded"


def test_a_file_that_cannot_be_sent_is_tried_a_few_times_reported_and_needed(
    tmp_path: Path, hub: FakeHub, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = Reports()
    made = uploads(reports)
    hub.faults["/preupload/"] = [408] * 100  # the request took too long
    path = weights(tmp_path)
    monkeypatch.setattr(logging.getLogger("library"), "propagate", True)
    made.add(path)
    made.finish()
    assert reports.names == ["upload_retry"] * 3 + ["upload_failed"]
    assert made.needs(path)
    assert path.read_bytes() == b"weights"
    assert f'hf upload me/toads "{path}" "toad.safetensors"' in caplog.text
    hub.faults.clear()
    made.add(path)  # saved anew under this name
    made.finish()
    assert not made.needs(path)


@pytest.mark.parametrize("given", [TOKEN, None], ids=["option", "HF_TOKEN"])
def test_no_right_to_write_is_no_reason_to_try_again(
    tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    reports = Reports()
    if given is None:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    made = uploads(reports, huggingface_token=given)
    hub.faults["/preupload/"] = [403]
    made.add(weights(tmp_path))
    made.add(tmp_path / "gone.safetensors")
    made.wait()
    assert reports.names == ["upload_failed", "upload_failed"]
    assert TOKEN not in str(reports.events)
    assert "no, Bearer (the token)" in str(reports.events)  # what the server said


def test_who_asked_to_stop_waits_for_one_try(tmp_path: Path, hub: FakeHub) -> None:
    reports = Reports()
    made = uploads(reports, wants_stop=True)
    made.pauses = (1e6,)
    hub.faults["/preupload/"] = [408] * 100
    made.add(weights(tmp_path))
    made.wait()
    assert reports.names == ["upload_failed"]


def test_a_wrong_token_is_told_at_once_but_not_the_token(hub: FakeHub) -> None:
    hub.faults["/api/whoami-v2"] = [401]
    with pytest.raises(UserError, match="huggingface_repo_id me/toads: the hub refuses: Invalid user token") as caught:
        uploads(Reports())
    assert TOKEN not in str(caught.value)


def test_a_hub_that_is_away_at_the_start_may_come_back(tmp_path: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", CLOSED_DOOR)
    reports = Reports()
    made = uploads(reports)
    made.hub._api.endpoint = hub.address
    made.add(weights(tmp_path))
    made.wait()
    assert [event for event in reports.names if event != "upload_retry"] == ["uploaded"]
    assert len(hub.created) == 1


def test_no_repository_no_uploads() -> None:
    assert start_uploads(HubOptions(), Reports(), lambda: False) is None


def test_a_name_that_cannot_be_is_told_without_asking() -> None:
    with pytest.raises(UserError, match="huggingface_repo_id"):
        check_hub(HubOptions(huggingface_repo_id="me/my/toads"))
    check_hub(HubOptions(huggingface_repo_id="me/toads"))


def test_adding_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    made = Uploads(Hub(HubOptions(huggingface_repo_id="me/toads")), Reports(), lambda: False, with_states=False, in_background=True)
    monkeypatch.setattr(made.hub, "send", lambda path: goes_on.wait())
    path = weights(tmp_path)
    made.add(path)
    assert made.needs(path)
    goes_on.set()
    made.wait()
    assert not made.needs(path)


def test_a_state_is_fetched_from_the_hub(tmp_path: Path, hub: FakeHub) -> None:
    hub.files = {"runs/toad-state/train_state.json": b"{}", "runs/toad-state/model.safetensors": b"t", "big.safetensors": b"x"}
    for resume in ("me/toads/runs/toad-state", "me/toads/runs/toad-state:main", "me/toads/runs/toad-state:main:model"):
        folder = fetch_state(resume, HubOptions(huggingface_token=TOKEN))
        assert sorted(path.name for path in folder.iterdir()) == ["model.safetensors", "train_state.json"]
    assert "big.safetensors" not in hub.downloads


@pytest.mark.parametrize(
    ("resume", "said"),
    [
        ("latest", 'resume "latest" names no state on the hub'),
        ("me/toads", "names no state on the hub"),
        ("me/toads/../x", "names no state on the hub"),
        ("me/toads/nowhere-state", "me/toads has no folder nowhere-state on the hub"),
        ("me/frogs/toad-state", "resume me/frogs/toad-state cannot be downloaded: 404"),
    ],
)
def test_what_the_hub_does_not_have_is_told(hub: FakeHub, resume: str, said: str) -> None:
    hub.files = {"toad-state/train_state.json": b"{}"}
    with pytest.raises(UserError, match=said):
        fetch_state(resume, HubOptions())
