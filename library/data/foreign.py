"""--dataset_class: a class of the user's that makes whole batches, found, made and checked; see library.data.foreign_batches."""
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from library.config.datasets import DatasetSettings, SubsetSettings
from library.config.spelling import did_you_mean
from library.data.records import ImageRecord, PreparedDataset, Size
from library.errors import UserError


def prepare_foreign(
    name: str, max_token_length: int | None, resolution: Size, bucket_step: int | None, where: str, debug_dataset: bool = False
) -> PreparedDataset:
    """The dataset of the class `name` (package.module.Class), each of its items an entry. `where` names the option in messages.

    bucket_step: what the sides of pictures must be multiples of, in pixels, where the model is known.

    What the class itself raises is not caught: its author needs the traceback.
    """
    maker = _find_class(name, where)(None, max_token_length, resolution, debug_dataset)
    _check(maker, name, where)
    if bucket_step is not None and hasattr(maker, "verify_bucket_reso_steps"):
        maker.verify_bucket_reso_steps(bucket_step)
    batch_size = max(1, int(getattr(maker, "batch_size", 1)))
    subset = SubsetSettings(image_dir=Path(name), class_tokens="", where=where)  # in metadata the class stands for a folder
    settings = DatasetSettings(resolution=resolution, batch_size=batch_size, subsets=(subset,), where=where)
    records = [
        ImageRecord(f"{name}[{index}]", resolution, "", False, 0, False, 1, resolution, resolution) for index in range(len(maker))
    ]
    counts = {kind: getattr(maker, f"num_{kind}_images", None) for kind in ("train", "reg")}
    images = " and ".join(f"{count} {kind} images" for kind, count in counts.items() if count is not None)
    note = f"{name} makes the batches, at most {batch_size} images in each{', of ' if images else ''}{images}; counted are batches"
    return PreparedDataset(settings, records, notes=[note], maker=maker)


def _find_class(name: str, where: str) -> Any:
    module_name, _, class_name = name.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f'{where}: "{name}" is no class; write package.module.Class, such as my_data.Pictures')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        itself = f"{module_name}.".startswith(f"{error.name}.")
        problem = f"there is no module {error.name}" if itself else f"it needs {error.name}, which is not installed"
        raise UserError(f'{where}: "{name}" cannot be imported: {problem}') from error
    if not hasattr(module, class_name):
        raise UserError(f'{where}: the module {module_name} has no "{class_name}"{did_you_mean(class_name, dir(module))}')
    return getattr(module, class_name)


def _check(maker: Any, name: str, where: str) -> None:
    missing = [method for method in ("__len__", "__getitem__") if not hasattr(maker, method)]
    if missing:
        raise UserError(f"{where}: {name} has no {' and no '.join(missing)}; a dataset gives batches by their number")
    if not len(maker):
        raise UserError(f"{where}: {name} has no batches")
