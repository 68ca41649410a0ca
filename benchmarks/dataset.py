"""What large folders cost: the way to the first batch, memory, caching, loading.

    python benchmarks/dataset.py --output /tmp/dataset

Writes folders of 1000, 10,000 and 100,000 pictures into the output folder (2 GB); each figure is of a process of its own. Exit code 1
if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from benchmarks.dataset_folders import FEW, write_headers, write_photographs
from library.data.folder_index import NAME as INDEX

ROOT = Path(__file__).resolve().parent.parent
FULL_COUNT = 100_000  # pictures that the targets are for


class Row(NamedTuple):
    """A figure and its target; None: it has none."""

    name: str
    value: float
    target: float | None = None
    at_least: bool = False  # else at most

    @property
    def holds(self) -> bool:
        return self.target is None or (self.value >= self.target if self.at_least else self.value <= self.target)

    def __str__(self) -> str:
        target = "" if self.target is None else f"{'at least' if self.at_least else 'at most'} {self.target:g}"
        return f"{self.name:<44} {self.value:>10.3f}  {target:<14} {'' if self.holds else 'MISSED'}".rstrip()


def measure(name: str, folder: Path) -> dict[str, Any]:
    """One of benchmarks.dataset_runs in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.dataset_runs", name, str(folder)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure_starts(output: Path, counts: list[int], rounds: int) -> list[Row]:
    """Cold and warm, the best of the rounds, for each number of pictures."""
    write_headers(output / FEW, 8)
    rows = []
    seconds = {}
    for count in counts:
        folder = write_headers(output / f"pictures_{count}", count)
        full = count == FULL_COUNT
        for state, most_seconds in (("cold", 25), ("warm", 3)):
            found = []
            for _ in range(rounds):
                if state == "cold":
                    (folder / INDEX).unlink(missing_ok=True)
                found.append(measure("start", folder))
            best = min(found, key=lambda run: run["seconds"])
            seconds[state, count] = best["seconds"]
            rows.append(Row(f"{count} {state}, seconds to the first batch", best["seconds"], most_seconds if full else None))
            rows.append(Row(f"{count} {state}, bytes an image", best["bytes_per_image"], 1024 if full else None))
    if len(counts) > 2:
        few, some, many = counts[-3:]
        early = (seconds["cold", some] - seconds["cold", few]) / (some - few)
        late = (seconds["cold", many] - seconds["cold", some]) / (many - some)
        rows.append(Row("growth: a further image, late against early", late / early, 1.5))
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures and for dataset.json")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, FULL_COUNT], help="pictures in a folder, ascending")
    parser.add_argument("--rounds", type=int, default=3, help="of each start; the best counts")
    options = parser.parse_args(argv)
    output = options.output.resolve()
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    rows = measure_starts(output, options.counts, options.rounds)
    caching = measure("caching", write_photographs(output / "photographs_512", 200, 512))
    loading = measure("loading", write_photographs(output / "photographs_768", 64, 768))
    rows.append(Row("caching: share of time that encodes", caching["busy_share"], 0.9, at_least=True))
    rows.append(Row("loading: batch of 8 against bare calls", loading["ratio"], 1.2))
    print("\n".join(map(str, rows)))
    figures = {"rows": [row._asdict() for row in rows], "caching": caching, "loading": loading, "load_before": load_before}
    (output / "dataset.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
