"""The record of a run: its folder with config, plan and events; and what the person is told meanwhile."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path
from typing import Any

from library.checkpoint.files import write_text
from library.checkpoint.temporary import remove_leftovers
from library.config.dump import settings_toml
from library.train.events import EventLog
from library.train.plan import Plan
from library.train.runtime import Runtime

log = logging.getLogger(__name__)

# What the person reads of an event; the fields are those of the event.
SENTENCES = {
    "saved": "saved {path}",
    "removed": "removed {path}, which is older than what is kept",
    "set_aside": "{path} is there from another run: it is now {now}",
    "uploaded": "uploaded {path} to {repo}",
    "upload_retry": "could not upload {path} yet: {reason}; trying again in {pause:.0f} s",
    "upload_failed": "could not upload {path}: {reason}",
    "validation": "validation loss {loss:.4f} after step {step}",
    "early_stopped": "the lowest validation loss is that of step {best_step}, and patience is {patience}: ending at step {step}",
    "sampled": "drew {count} sample images in {seconds} s",
    "save_failed": "could not save {path}: {reason}",
    "save_refused": "nothing saved at step {step}: {reason}",
    "remove_failed": "could not remove {path}: {reason}",
    "sample_failed": "could not draw a sample: {reason}",
    "class_images_drawn": "drew {count} class pictures in {seconds} s",
    "class_images_stopped": "stopped after {count} of {total} class pictures: {reason}; the same command goes on with the others",
    "vae_widened": "the VAE makes no finite numbers in {precision} of {images}: it runs in float32 from here on",
    "stopped": "stopped after step {step}: {reason}; the same command with --resume latest goes on from here",
}
WARNINGS = (
    "save_failed", "save_refused", "remove_failed", "sample_failed", "class_images_stopped", "stopped",
    "upload_retry", "upload_failed", "vae_widened",
)  # fmt: skip


def tell(event: str, **facts: Any) -> None:
    """The sentence for the person."""
    level = logging.WARNING if event in WARNINGS else logging.INFO
    log.log(level, "%s", SENTENCES[event].format_map({"path": "", **facts}))


class RunRecord:
    """`<output_dir>/<output_name>-runs/<time>`, shared by all processes of a run."""

    def __init__(self, plan: Plan, runtime: Runtime):
        stamp = runtime.same_everywhere(f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:4]}")
        self.folder = plan.runs_folder / stamp
        self.started_at = time.time()  # seconds since 1970
        self.events = EventLog(self.folder, runtime.rank)
        if runtime.is_main:
            remove_leftovers(plan.output_dir)
            write_text(self.folder / "config.toml", settings_toml(plan.resolved_settings))
            write_text(self.folder / "plan.txt", "\n".join(plan.lines()) + "\n")

    def report(self, event: str, **facts: Any) -> None:
        """An event for the log of the run, and a sentence for the person."""
        self.events.write(event, **facts)
        tell(event, **facts)

    def summary(
        self, trained: Path | None, best: Path | None, samples: Path | None, sheet: Path | None, log_folder: Path | None
    ) -> str:
        """Where everything is, at the end of a run."""
        lines = [f"trained weights: {trained}" if trained else "trained weights: none were saved"]
        lines += [f"best weights:    {best}"] if best else []
        lines += [f"sample images:   {samples}", f"contact sheet:   {sheet}"] if sheet else []
        lines += [f"TensorBoard:     tensorboard --logdir {log_folder}"] if log_folder else []
        return "\n".join([*lines, f"record of run:   {self.folder}"])
