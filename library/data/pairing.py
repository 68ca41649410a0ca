"""Class pictures beside as many others in each batch (--paired_prior): whether a dataset has them, and which are not used."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from library.data.records import PreparedDataset, Size


def pairing_mistakes(dataset: PreparedDataset) -> Iterator[str]:
    """Why the pictures of the dataset cannot be paired. A batch is of one size, hence its class pictures too."""
    where = dataset.settings.where
    if not dataset.settings.paired_prior or not dataset.train_entries:
        return
    if not dataset.is_paired:
        yield f"{where}: paired_prior needs class pictures here; add a subset with is_reg = true, or remove paired_prior"
        return
    offered = {record.bucket for record in dataset.records if record.is_reg}
    alone: dict[Size, str] = {}
    for index in dataset.train_entries:
        record = dataset.records[index]
        if record.bucket not in offered:
            alone.setdefault(record.bucket, record.path)
    for (width, height), path in sorted(alone.items()):
        yield (
            f"{where}: paired_prior: no class picture has the shape {width}x{height} of {Path(path).name}; add class pictures of "
            "that shape, or remove enable_bucket"
        )


def pairing_notes(dataset: PreparedDataset) -> Iterator[str]:
    """What a person should know of pictures in pairs."""
    if not dataset.is_paired:
        return
    used = {index for ring in dataset.regularisation_rings for index in ring.order}
    unused = [record for index, record in enumerate(dataset.records) if record.is_reg and index not in used]
    if unused:
        example = Path(unused[0].path).name
        yield f"paired_prior: {len(unused)} class pictures have a shape that no other picture has, and are not used, such as {example}"
