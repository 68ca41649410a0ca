"""Trackers: which are started and with what, what they are told, what they must not be told, and what happens when one breaks."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from library.config.options import LoggingOptions
from library.config.settings import Settings, settings_of
from library.errors import UserError
from library.train import trackers
from library.train.trackers import CarefulTracker, check_trackers, start_trackers, tracker_names

KEY = "0123456789abcdef" * 2 + "01234567"  # of the form that wandb wants
ROOT = Path(__file__).parents[2]
HAS_WANDB = importlib.util.find_spec("wandb") is not None


def plan(**options: Any) -> Any:
    """What start_trackers reads of a plan."""
    settings = settings_of({"output_dir": "/home/me/private", "seed": 7, **options})
    return SimpleNamespace(settings=settings, resolved_settings=settings)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ()),
        ({"logging_dir": "logs"}, ("tensorboard",)),
        ({"log_with": "wandb"}, ("wandb",)),
        ({"logging_dir": "logs", "log_with": "wandb"}, ("wandb",)),
        ({"logging_dir": "logs", "log_with": "all"}, ("tensorboard", "wandb")),
    ],
)
def test_which_trackers_are_meant(options: dict[str, str], names: tuple[str, ...]) -> None:
    assert tracker_names(LoggingOptions(**options)) == names


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    check_trackers(settings_of({"logging_dir": "logs"}))
    with pytest.raises(UserError, match="log_with.*pip install wandb"):
        check_trackers(settings_of({"log_with": "wandb"}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[wandb]\nentity = 'me'", r"trackers.toml \[wandb\]: this run logs with tensorboard"),
        ("[tensorboard]\nflush_sec = 3", r'\[tensorboard\] flush_sec: .* did you mean "flush_secs"'),
        ("[tensorboard]\nlog_dir = 'x'", "log_dir: no argument of tensorboard"),
        ("tensorboard = 3", "expected a table"),
        ("[tensorboard", "trackers.toml"),
    ],
)
def test_what_a_tracker_would_not_take_is_told(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "trackers.toml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        check_trackers(settings_of({"logging_dir": "logs", "log_tracker_config": str(path)}))


def test_a_missing_tracker_config_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere.toml"):
        check_trackers(settings_of({"logging_dir": "logs", "log_tracker_config": str(tmp_path / "nowhere.toml")}))


def test_tensorboard_gets_numbers_arguments_and_the_options(tmp_path: Path) -> None:
    config = tmp_path / "trackers.toml"
    config.write_text("[tensorboard]\nfilename_suffix = '.toad'", encoding="utf-8")
    settings = plan(logging_dir=str(tmp_path / "logs"), log_prefix="toad-", log_config=True, log_tracker_config=str(config))
    check_trackers(settings.settings)
    (tracker,) = start_trackers(settings)
    tracker.log({"loss/current": 0.5}, step=3)
    tracker.log_images({"sample_0": tmp_path / "none.png"}, step=3)  # not TensorBoard's
    tracker.finish()

    (folder,) = (tmp_path / "logs").iterdir()
    assert folder.name.startswith("toad-20")
    (log,) = (folder / "network_train").glob("events*")
    assert log.name.endswith(".toad")
    events = EventAccumulator(str(log))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/current")] == [(3, 0.5)]
    (hparams,) = folder.rglob("hparams.yml")
    assert "seed: 7" in hparams.read_text(encoding="utf-8")
    assert not [name for name, content in files_below(folder).items() if b"/home/me/private" in content]


class FakeWandb:
    """Notes what wandb would be told."""

    def __init__(self) -> None:
        self.started: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.axes: dict[str, str] = {}
        self.config: dict[str, Any] = {}
        self.failure: Exception | None = None

    def init(self, project=None, dir=None, name=None, entity=None, settings=None, mode=None):  # noqa: A002
        if self.failure:
            raise self.failure
        self.started = {"project": project, "dir": dir, "name": name, "entity": entity, "settings": settings}
        return self

    def Settings(self, **values: Any) -> dict[str, Any]:  # noqa: N802
        return values

    def Image(self, path: str) -> str:  # noqa: N802
        return f"image {path}"

    def define_metric(self, tag: str, step_metric: str) -> None:
        self.axes[tag] = step_metric

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self) -> None:
        self.logged.append({"finished": True})


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_is_started_and_told_on_which_axis_numbers_are(wandb: FakeWandb, tmp_path: Path) -> None:
    options = {"wandb_run_name": "green", "wandb_api_key": KEY, "log_config": True, "log_tracker_name": "toads"}
    tensorboard, tracker = start_trackers(plan(logging_dir=str(tmp_path), log_with="all", **options))
    tensorboard.finish()
    assert wandb.started["project"] == "toads"
    assert wandb.started["name"] == "green"
    assert wandb.started["dir"].parent == tmp_path
    assert wandb.started["settings"] == {**trackers.UNTOLD, "api_key": KEY}
    assert wandb.config["seed"] == 7
    assert KEY not in str(wandb.config)
    assert "/home/me" not in str(wandb.config)
    tracker.log({"loss/current": 1.0, "lr/unet": 0.1}, step=40)
    tracker.log({"loss/epoch_average": 2.0}, step=2)
    tracker.log({"loss/validation/epoch_average": 3.0}, step=2)
    tracker.log_images({"sample_1": Path("a.png")}, step=40)
    tracker.finish()
    assert wandb.logged == [
        {"loss/current": 1.0, "lr/unet": 0.1, "global_step": 40},
        {"loss/epoch_average": 2.0, "epoch": 2},
        {"loss/validation/epoch_average": 3.0, "epoch": 2},
        {"sample_1": "image a.png", "global_step": 40},
        {"finished": True},
    ]
    assert wandb.axes == {
        "loss/current": "global_step",
        "lr/unet": "global_step",
        "loss/epoch_average": "epoch",
        "loss/validation/epoch_average": "epoch",
    }


def test_a_tracker_config_replaces_what_wandb_is_started_with(wandb: FakeWandb, tmp_path: Path) -> None:
    path = tmp_path / "trackers.toml"
    path.write_text('[wandb]\nentity = "us"\nproject = "pond"\n[wandb.settings]\nconsole = "wrap"', encoding="utf-8")
    start_trackers(plan(log_with="wandb", log_tracker_config=str(path)))
    assert wandb.started["entity"] == "us"
    assert wandb.started["project"] == "pond"
    assert wandb.started["settings"] == {**trackers.UNTOLD, "console": "wrap"}


def test_wandb_that_cannot_start_is_a_mistake_that_does_not_tell_the_key(wandb: FakeWandb) -> None:
    wandb.failure = RuntimeError(f"401 for\nkey {KEY}")
    with pytest.raises(UserError, match="log_with: wandb cannot start: 401 for key .the key.; log in") as caught:
        start_trackers(plan(log_with="wandb", wandb_api_key=KEY))
    assert KEY not in str(caught.value)


OFFLINE = """
import sys
from pathlib import Path
from PIL import Image
from tests.train.test_trackers import plan
from library.train.trackers import check_trackers, start_trackers

folder, key = Path(sys.argv[1]), sys.argv[2]
Image.new("RGB", (8, 8), "green").save(folder / "drawn.png")
made = plan(logging_dir=str(folder / "logs"), log_with="wandb", wandb_api_key=key, log_config=True)
check_trackers(made.settings)
(tracker,) = start_trackers(made)
tracker.log({"loss/current": 0.5}, step=1)
tracker.log({"loss/epoch_average": 0.5}, step=1)
tracker.log_images({"sample_0": folder / "drawn.png"}, step=1)
tracker.finish()
"""


@pytest.mark.skipif(not HAS_WANDB, reason="wandb is not installed (pip install wandb)")
def test_wandb_offline_keeps_everything_here_and_no_secret(tmp_path: Path) -> None:
    """In a process of its own, for wandb writes to its end, and looks at the command line."""
    command = [sys.executable, "-c", OFFLINE, str(tmp_path), KEY, "--huggingface_token", "hf_hidden"]
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = files_below(tmp_path / "logs")
    (record,) = (content for name, content in files.items() if name.endswith(".wandb"))
    assert b"loss/epoch_average" in record
    assert b"lr_scheduler" in record
    assert [name for name in files if "media/images/sample_0_" in name]
    texts = [*files.values(), done.stdout.encode(), done.stderr.encode()]
    for secret in (KEY, "hf_hidden", "/home/me/private"):
        assert not any(secret.encode() in content for content in texts)


class Breaking:
    """A tracker that never works."""

    calls = 0

    def log(self, values: dict[str, Any], step: int) -> None:
        self.calls += 1
        raise OSError("no space left")

    log_images = log

    def finish(self) -> None:
        self.calls += 1


def test_a_tracker_that_breaks_is_named_once_and_left_alone(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("library"), "propagate", True)
    broken = Breaking()
    tracker = CarefulTracker(broken, "tensorboard")
    tracker.log({"loss": 1.0}, step=1)
    tracker.log_images({"sample_0": Path("a.png")}, step=1)
    tracker.finish()
    assert broken.calls == 1
    assert caplog.messages == ["tensorboard is not written any more: OSError: no space left"]


def test_a_run_without_trackers_starts_none() -> None:
    assert start_trackers(plan()) == []
    assert isinstance(plan().settings, Settings)
