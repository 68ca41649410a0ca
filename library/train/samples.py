"""Sample images of a run: drawn with the weights as they are, named, and gathered on a contact sheet at the end."""

from __future__ import annotations

import time
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path

from PIL import Image

from library.checkpoint.files import atomic_write
from library.checkpoint.saver import Report
from library.config.text_settings import text_settings
from library.methods.base import Method
from library.optim.average import WeightAverage
from library.sampling.preview import PreviewOptions, draw_samples, save_samples
from library.sampling.prompts import SamplePrompt
from library.sampling.sheet import contact_sheet
from library.train.plan import Plan
from library.train.runtime import Runtime
from library.train.trackers import Tracker
from library.types import Parts


def preview_options(plan: Plan) -> PreviewOptions:
    """What pictures share with the training of this plan."""
    return PreviewOptions(plan.seed, text_settings(plan.settings.model), plan.settings.noise.zero_terminal_snr)


class SampleDrawer:
    """Draws the plan's prompts. A failure is reported and ends nothing."""

    def __init__(
        self, plan: Plan, parts: Parts, method: Method, runtime: Runtime, report: Report, trackers: list[Tracker],
        average: WeightAverage | None = None,
    ):  # fmt: skip
        self.folder = plan.output_dir / "sample"
        self._plan, self._parts, self._method, self._runtime, self._report = plan, parts, method, runtime, report
        self._trackers = trackers
        self._average = average  # of the weights, to draw with
        self._columns: list[tuple[str, list[Path | None]]] = []

    def draw_first(self) -> None:
        """Before the first step, if asked for; a resumed run has these already."""
        if self._plan.settings.sampling.sample_at_first and self._plan.length.first_step == 1:
            self.draw(0, 0)

    def draw(self, step: int, epoch: int | None) -> None:
        """Draw and save all prompts. `epoch` where it ends with this step, and samples are counted in epochs."""
        prompts, runtime = self._plan.prompts, self._runtime
        if not prompts or not (runtime.is_main or runtime.sharing.in_parts) or runtime.stop_wanted():
            return
        started = time.monotonic()
        self._method.eval()
        try:
            with runtime.autocast(), self._average.in_place() if self._average else nullcontext():
                asked = takewhile(lambda _: not runtime.stop_wanted(), prompts)
                pictures = draw_samples(self._plan.family, self._parts, asked, preview_options(self._plan), self._failed)
        finally:
            self._method.train()
        if runtime.is_main:
            self._keep(pictures + [None] * (len(prompts) - len(pictures)), step, epoch, started)

    def _keep(self, pictures: list[Image.Image | None], step: int, epoch: int | None, started: float) -> None:
        """Save the pictures, None for one that was not drawn, and tell of them. started: by the monotonic clock."""
        settings = self._plan.settings
        in_epochs = settings.sampling.sample_every_n_epochs is not None or step == 0
        name, place = settings.saving.output_name, epoch if in_epochs else None
        try:
            paths = save_samples(pictures, self._plan.prompts, self.folder, name, step, place)
        except OSError as error:
            self._report("sample_failed", step=step, reason=str(error))
            return
        remaining = iter(paths)
        column = [next(remaining) if picture is not None else None for picture in pictures]
        self._columns.append((f"step {step}", column))
        drawn = {f"sample_{index}": path for index, path in enumerate(column) if path is not None}
        for tracker in self._trackers if drawn else ():
            tracker.log_images(drawn, step)
        self._report(
            "sampled",
            step=step,
            seconds=round(time.monotonic() - started, 1),
            count=len(paths),
            images=[path.name for path in paths],
        )

    def write_sheet(self) -> Path | None:
        """The contact sheet of what this run drew: a row per prompt, a column per time."""
        if not self._columns:
            return None
        path = self.folder / f"{self._plan.settings.saving.output_name or 'last'}_sheet_{time.strftime('%Y%m%d%H%M%S')}.png"
        try:
            sheet = contact_sheet([prompt.prompt for prompt in self._plan.prompts], self._columns)
            with atomic_write(path) as temporary:
                sheet.save(temporary, format="PNG")
        except OSError as error:
            self._report("sample_failed", reason=f"the contact sheet: {error}")
            return None
        return path

    def _failed(self, prompt: SamplePrompt, error: Exception) -> None:
        self._report("sample_failed", prompt=prompt.prompt, reason=f"{type(error).__name__}: {error}")
