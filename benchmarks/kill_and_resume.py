"""Kills trainings at drawn instants, twice each, resumes them, and compares the weights with those of an unbroken run.

python benchmarks/kill_and_resume.py [--points 30] [--seed 0]      exit code 1 if any run ends with other weights
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # to run as a script, without an installation

from tests.train.runs import KILL, Strike, Workshop, make_workshop, tensors_hash
from tests.train.test_resume import OPTIONS

# What a run does at which it may be killed, and at which instants of that.
INSTANTS = {
    "library.checkpoint.state.save_file": ("half-way", "after"),
    "torch.save": ("half-way", "after"),
    "library.methods.adapter.AdapterMethod.write": ("half-way", "after"),
    "library.checkpoint.files.replace": ("before", "after"),
    "library.checkpoint.files.flush_file": ("before", "after"),
    "library.checkpoint.saver.remove": ("before", "after"),
    "library.train.runtime.Runtime.backward": ("before", "after"),
    "torch.optim.AdamW.step": ("before", "after"),
    "library.train.events.EventLog.write": ("before", "after"),
}


def draw_strike(draw: random.Random, calls: Counter[str], part: float = 1.0) -> Strike:
    """An instant in the first part of an unbroken run. Drawn by what is done first, so that rare deeds are struck as often."""
    function = draw.choice(sorted(calls))
    return Strike(function, draw.randint(1, max(1, int(calls[function] * part))), draw.choice(INSTANTS[function]))


def killed_twice(workshop: Workshop, name: str, strikes: tuple[Strike, Strike], workers: int) -> tuple[int, str]:
    """How often a run was killed before it came to its end, and the hash of its weights then."""
    kills = 0
    outcome = workshop.go_on(name, strikes=strikes[:1], max_data_loader_n_workers=workers)
    while outcome.code == -KILL:  # the second instant may not come: a resumed run has less to do
        kills += 1
        outcome = workshop.go_on(name, strikes=strikes[kills : kills + 1], max_data_loader_n_workers=workers)
    everything_was_done = outcome.code == 2 and "are done already" in outcome.output  # killed after its very last save
    if outcome.code != 0 and not everything_was_done:
        return kills, f"exit code {outcome.code}: {outcome.output.strip().splitlines()[-1]}"
    return kills, tensors_hash(workshop.output(name) / "toad.safetensors")


def described(strike: Strike) -> str:
    return f"{strike.when} {strike.function.removeprefix('library.')} {strike.call}"


def main(points: int, seed: int, folder: Path) -> int:
    draw = random.Random(seed)
    workshop = make_workshop(folder, **OPTIONS)
    calls = workshop.count_calls("unbroken", list(INSTANTS))
    unbroken = tensors_hash(workshop.output("unbroken") / "toad.safetensors")
    table = Table("point", "first kill", "second kill", "workers", "killed", "weights", title=f"unbroken run: {unbroken}")
    different, kills, started = 0, 0, time.monotonic()
    for point in range(points):
        strikes = draw_strike(draw, calls), draw_strike(draw, calls, part=0.4)  # that early, for most resumed runs to reach it
        workers = draw.choice((0, 2))
        killed, final = killed_twice(workshop, f"point-{point}", strikes, workers)
        kills += killed
        different += final != unbroken
        verdict = "the same" if final == unbroken else final
        table.add_row(str(point), *map(described, strikes), str(workers), str(killed), verdict)
        print(f"{point + 1}/{points}: killed {killed} times, {verdict}", file=sys.stderr, flush=True)
    Console(width=200).print(table)
    print(f"{points} points, {kills} kills, {different} different; {time.monotonic() - started:.0f} s; seed {seed}")
    return 1 if different else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=30, help="how many runs are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(options.points, options.seed, Path(temporary)))
