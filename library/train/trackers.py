"""TensorBoard and Weights & Biases (wandb): what they are started with, checked early; a tracker that breaks ends no training."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from library.config.dump import shown_to_others
from library.config.load import Settings
from library.config.options import LoggingOptions
from library.config.spelling import did_you_mean
from library.config.text_files import read_toml
from library.errors import UserError

if TYPE_CHECKING:
    from library.train.plan import Plan

log = logging.getLogger(__name__)
TENSORBOARD, WANDB = "tensorboard", "wandb"
WHAT = "tracker config"
# Of wandb's own records these would tell others of this machine and of the command line, which may hold keys.
UNTOLD = {"x_disable_meta": True, "disable_git": True, "disable_code": True, "console": "off"}
COUNTED_IN_EPOCHS = ("loss/epoch_average", "loss/validation/epoch_")  # tags that begin so; the others are counted in steps


class Tracker(Protocol):
    """Follows a run by numbers and pictures."""

    def log(self, values: dict[str, Any], step: int) -> None: ...

    def log_images(self, images: dict[str, Path], step: int) -> None: ...

    def finish(self) -> None: ...


def tracker_names(options: LoggingOptions) -> tuple[str, ...]:
    """The trackers that the options ask for."""
    if options.log_with is None:
        return (TENSORBOARD,) if options.logging_dir else ()
    return (TENSORBOARD, WANDB) if options.log_with == "all" else (options.log_with,)


def check_trackers(settings: Settings) -> None:
    """UserError if a tracker is not installed or would not take what its file says. Starts nothing."""
    options, names = settings.logging, tracker_names(settings.logging)
    if WANDB in names and importlib.util.find_spec(WANDB) is None:
        where = settings.where("log_with")
        raise UserError(f'{where}: wandb is not installed; `pip install wandb`, or write log_with = "tensorboard"')
    for name, table in _tables(options).items():
        where = f"{options.log_tracker_config} [{name}]"
        if name not in names:
            raise UserError(f"{where}: this run logs with {' and '.join(names)}; name the table [{names[0]}], or remove it")
        if not isinstance(table, dict):
            raise UserError(f"{where}: expected a table, [{name}] on a line of its own")
        known = [parameter for parameter in inspect.signature(_starter(name)).parameters if parameter != "log_dir"]
        if unknown := [key for key in table if key not in known]:
            raise UserError(*(f"{where} {key}: no argument of {name}{did_you_mean(key, known)}" for key in unknown))


def _tables(options: LoggingOptions) -> dict[str, Any]:
    return read_toml(Path(options.log_tracker_config), WHAT) if options.log_tracker_config else {}


def _starter(name: str) -> Callable[..., Any]:
    """What a tracker is started with."""
    if name == WANDB:
        import wandb

        return wandb.init
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def start_trackers(plan: Plan) -> list[Tracker]:
    """Those that the run asks for, started. UserError if one cannot be."""
    options = plan.settings.logging
    project = options.log_tracker_name or plan.settings.script.tracker
    folder = None
    if options.logging_dir:
        folder = Path(options.logging_dir) / f"{options.log_prefix or ''}{time.strftime('%Y%m%d%H%M%S')}"
    shown = shown_to_others(plan.resolved_settings) if options.log_config else {}
    tables, trackers = _tables(options), list[Tracker]()
    for name in tracker_names(options):
        table = tables.get(name, {})
        if name == WANDB:
            tracker: Tracker = WandbTracker(project, folder, options, table, shown)
        else:
            assert folder is not None, "TensorBoard without logging_dir is refused by config.check"
            tracker = TensorBoard(project, folder, table, shown)
        trackers.append(CarefulTracker(tracker, name))
    return trackers


class TensorBoard:
    """Numbers; the sample pictures are in their own folder."""

    def __init__(self, project: str, folder: Path, table: dict[str, Any], shown: dict[str, Any]):
        from accelerate.tracking import TensorBoardTracker

        self._tracker = TensorBoardTracker(project, folder, **table)
        self._tracker.start()
        if shown:
            self._tracker.store_init_configuration(shown)

    def log(self, values: dict[str, Any], step: int) -> None:
        self._tracker.log(values, step=step)

    def log_images(self, images: dict[str, Path], step: int) -> None:
        """None: see above."""

    def finish(self) -> None:
        self._tracker.finish()


class WandbTracker:
    """A run of wandb. `WANDB_MODE=offline` keeps it on this machine."""

    def __init__(
        self, project: str, folder: Path | None, options: LoggingOptions, table: dict[str, Any], shown: dict[str, Any]
    ):
        import wandb

        key = options.wandb_api_key
        settings = {**UNTOLD, **({"api_key": key} if key else {}), **table.get("settings", {})}
        chosen = {"project": project, "dir": folder, **(table if options.log_tracker_config else {"name": options.wandb_run_name})}
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(**{**chosen, "settings": wandb.Settings(**settings)})
        except Exception as error:  # wandb's own errors, pydantic's, and those of the network
            reason = " ".join(str(error).split()) or type(error).__name__
            reason = reason.replace(key, "(the key)") if key else reason
            raise UserError(
                f"log_with: wandb cannot start: {reason}; log in with `wandb login`, give --wandb_api_key, or set WANDB_MODE=offline"
            ) from error
        if shown:
            self._run.config.update(shown)
        self._known: set[str] = set()

    def log(self, values: dict[str, Any], step: int) -> None:
        """wandb counts calls itself, and takes no step that is smaller than the last: so each tag gets an axis of its own."""
        axis = "epoch" if next(iter(values)).startswith(COUNTED_IN_EPOCHS) else "global_step"
        for tag in values.keys() - self._known:
            self._run.define_metric(tag, step_metric=axis)
        self._known |= values.keys()
        self._run.log({**values, axis: step})

    def log_images(self, images: dict[str, Path], step: int) -> None:
        import wandb

        self._run.log({**{tag: wandb.Image(str(path)) for tag, path in images.items()}, "global_step": step})

    def finish(self) -> None:
        self._run.finish()


class CarefulTracker:
    """Lets a tracker work until it breaks, which is said once."""

    def __init__(self, tracker: Tracker, name: str):
        self._tracker, self._name, self._works = tracker, name, True

    def log(self, values: dict[str, Any], step: int) -> None:
        self._try(lambda: self._tracker.log(values, step))

    def log_images(self, images: dict[str, Path], step: int) -> None:
        self._try(lambda: self._tracker.log_images(images, step))

    def finish(self) -> None:
        self._try(self._tracker.finish)

    def _try(self, call: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            call()
        except Exception as error:  # a full disk, a dead process of wandb's: the training is worth more
            self._works = False
            log.warning("%s is not written any more: %s: %s", self._name, type(error).__name__, error)
