"""The training loss split up: by folder of pictures, and by band of timesteps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from library.data.records import PreparedDataset
from library.diffusion.schedule import TIMESTEPS
from library.types import Batch

BAND = 250  # timesteps
Folder = tuple[int, int]  # number of the dataset, number of the subset in it


class LossSplits:
    """Sees the loss of every sample; gives means over a step and over an epoch, over all processes.

    The samples of a step stay where they are until the step is done, so that no micro-step waits for the device.
    """

    def __init__(self, folders: Sequence[tuple[Folder, str]], sum_everywhere: Callable[[Tensor], Tensor]):
        """folders: with their names; fewer than two are not told apart."""
        folders = folders if len(folders) > 1 else []
        self._numbers = {folder: number for number, (folder, _) in enumerate(folders)}
        bands = [f"timesteps/{low}-{low + BAND - 1}" for low in range(0, TIMESTEPS, BAND)]
        self._names = [*(f"dataset/{name}" for _, name in folders), *bands]
        self._sum_everywhere = sum_everywhere
        self._seen: list[tuple[Tensor, Tensor]] = []  # timesteps [B] and losses [B] of the batches of this step
        self._folders_seen: list[int] = []
        self._epoch = self._no_sums()

    def observe(self, batch: Batch, timesteps: Tensor, losses: Tensor) -> None:
        """After the forward pass of every micro-step."""
        if batch.place.share == 0:  # a copy that is counted nowhere
            return
        self._seen.append((timesteps, losses.detach()))
        if self._numbers:
            datasets = (sample.dataset for sample in batch.place.samples)
            self._folders_seen += [self._numbers[folder] for folder in zip(datasets, batch.subsets, strict=True)]

    def end_step(self) -> dict[str, float]:
        """Means over the samples of the step, by name; what the step had none of is absent."""
        sums, counts = [0.0] * len(self._names), [0] * len(self._names)
        for row, loss in self._rows_of_step():
            sums[row] += loss
            counts[row] += 1
        self._seen.clear()
        self._folders_seen.clear()
        totals = self._sum_everywhere(torch.tensor([sums, counts], dtype=torch.float64))
        self._epoch += totals
        return self._means(totals)

    def _rows_of_step(self) -> Iterator[tuple[int, float]]:
        """The loss of each sample, once for its band and once for its folder."""
        if not self._seen:
            return
        timesteps, losses = (torch.cat(facts).tolist() for facts in zip(*self._seen, strict=True))
        yield from zip((len(self._numbers) + timestep // BAND for timestep in timesteps), losses, strict=True)
        if self._numbers:
            yield from zip(self._folders_seen, losses, strict=True)

    def end_epoch(self) -> dict[str, float]:
        """Means over what was seen of the epoch."""
        means = self._means(self._epoch)
        self._epoch = self._no_sums()
        return means

    def _no_sums(self) -> Tensor:
        """Sums of losses, and of samples, for each name."""
        return torch.zeros(2, len(self._names), dtype=torch.float64)

    def _means(self, sums: Tensor) -> dict[str, float]:
        return {name: loss / count for name, loss, count in zip(self._names, *sums.tolist(), strict=True) if count}


def named_folders(prepared: Sequence[PreparedDataset]) -> list[tuple[Folder, str]]:
    """The folders (or metadata files) that are trained on; of several of one name all but the first get a number."""
    folders: list[tuple[Folder, str]] = []
    taken: dict[str, int] = {}
    for number, dataset in enumerate(prepared):
        used = {record.subset for record in dataset.records}
        for index in sorted(used):
            name = dataset.settings.subsets[index].name
            taken[name] = taken.get(name, 0) + 1
            folders.append(((number, index), name if taken[name] == 1 else f"{name} ({taken[name]})"))
    return folders
