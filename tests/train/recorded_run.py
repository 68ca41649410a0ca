"""train_network.py, but each process writes down which pictures it saw, and its weights at the end.

accelerate launch -m tests.train.recorded_run --record FOLDER [--terminate_at STEP] options of train_network.py
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import library.train.run
from library.methods.base import Method
from library.train.loop import train
from library.train.runtime import Runtime
from library.types import Batch
from train_network import TRAIN_NETWORK, main


def record_to(folder: Path, terminate_at: int | None) -> None:
    """Puts a recording loop into the place of the loop. In step `terminate_at` the process of rank 1 is sent SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)

    def recorded_train(batches: Iterable[Batch], batch_loss: Any, method: Method, *others: Any) -> None:
        runtime: Runtime = next(other for other in others if isinstance(other, Runtime))
        seen: list[dict[str, Any]] = []

        def watched() -> Iterator[Batch]:
            for batch in batches:
                place = batch.place
                pictures = [Path(path).name for path in batch.image_paths]
                seen.append(
                    {
                        "epoch": place.epoch,
                        "step": place.step,
                        "share": place.share,
                        "first_position": place.first_position,
                        "pictures": pictures,
                    }
                )
                if place.step == terminate_at and runtime.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        train(watched(), batch_loss, method, *others)
        (folder / f"rank{runtime.rank}.json").write_text(json.dumps(seen), encoding="utf-8")
        save_file(method.modules()["network"].state_dict(), folder / f"rank{runtime.rank}.safetensors")

    library.train.run.train = recorded_train


if __name__ == "__main__":
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--terminate_at", type=int)
    options, arguments = parser.parse_known_args()
    record_to(options.record, options.terminate_at)
    main(TRAIN_NETWORK, arguments)
