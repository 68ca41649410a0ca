"""The training loss split up: by folder of pictures, and by band of timesteps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
        sums = self._no_sums()
        if self._seen:
            pairs = [torch.stack([timesteps.float(), losses.float()]) for timesteps, losses in self._seen]
            timesteps, losses = torch.cat(pairs, dim=1).cpu().double()
            rows = [len(self._numbers) + timesteps.long() // BAND]
            rows += [torch.tensor(self._folders_seen)] if self._numbers else []
            for row in rows:
                sums[0].index_add_(0, row, losses)
                sums[1].index_add_(0, row, torch.ones_like(losses))
        self._seen.clear()
        self._folders_seen.clear()
        sums = self._sum_everywhere(sums)
        self._epoch += sums
        return self._means(sums)

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
