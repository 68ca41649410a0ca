"""Tiny training runs, each in a process (or two) of its own that can be struck by a signal at a chosen instant."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers.optimization  # noqa: F401  imported once by the fork server, so that a run starts in a moment
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

import library.data.loader
import library.train.caching_run  # noqa: F401  the same
import library.train.run  # noqa: F401  the same
import networks.lora  # noqa: F401  the same
from library.config.scripts import SCRIPTS
from library.config.settings import options_for
from library.train.app import main
from tests.tiny_models import tiny_sd1_folder

ROOT = Path(__file__).resolve().parents[2]
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows os.kill ends a process with any signal
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WATCH = ROOT / "tests" / "watch"  # for whoever asks which weights are read: PYTHONPATH
IMAGES = 5


@dataclass(frozen=True)
class Strike:
    """What befalls a process at the n-th call of a function, 1-based: a signal that it sends to itself, or a mishap."""

    function: str  # "package.module.function" or "package.module.Class.function", where it is looked up when called
    call: int
    when: Literal["before", "half-way", "after"]  # half-way: half of the file whose path it was given is written
    signal: int = KILL
    mishap: Callable[[], object] | None = None  # called in the place of the signal


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code, negative for the signal that killed it, and all that it printed."""

    code: int
    output: str


@dataclass(frozen=True)
class Workshop:
    """A folder with a tiny model and pictures, in which runs with common options are made."""

    folder: Path
    options: dict[str, Any]
    script: str = "train_network.py"

    def output(self, name: str) -> Path:
        return self.folder / name

    def config(self, name: str, **options: Any) -> Path:
        """The config of a run whose files go to `output(name)`; an option that is None is left out."""
        values = {**self.options, "output_dir": str(self.output(name)), "output_name": "toad", **options}
        path = self.folder / f"{name}.toml"
        lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items() if value is not None]
        path.write_text("".join(lines), encoding="utf-8")
        return path

    def train(
        self, name: str, *flags: str, strikes: Sequence[Strike] = (), constants: Mapping[str, Any] | None = None, **options: Any
    ) -> Outcome:
        """A run until its end. `constants`: other values for names of modules, such as "package.module.NAME"."""
        arguments = ["--config_file", str(self.config(name, **options)), *flags]
        return self._finished(name, _train, self.script, arguments, list(strikes), dict(constants or {}))

    def train_in_two(
        self,
        name: str,
        *flags: str,
        prepare: Callable[[], object] | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> tuple[Outcome, Outcome]:
        """The same by two processes, told of each other as accelerate's launcher tells them. Both `prepare` before they begin."""
        arguments = ["--config_file", str(self.config(name, **options)), *flags]
        meeting = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # its port is taken by nobody else
        together = {
            "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(meeting.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        }  # fmt: skip
        logs, processes = [], []
        for rank in ("0", "1"):
            logs.append(self.folder / f"{name}.rank{rank}.log")
            place = {**(environment or {}), **together, "RANK": rank, "LOCAL_RANK": rank}
            process = process_context().Process(target=_train_as, args=(place, prepare, logs[-1], self.script, arguments))
            process.start()
            processes.append(process)
        for process in processes:
            process.join()
        one, other = (Outcome(process.exitcode, log.read_text(encoding="utf-8")) for process, log in zip(processes, logs, strict=True))
        return one, other

    def go_on(self, name: str, strikes: Sequence[Strike] = (), **options: Any) -> Outcome:
        """What a person does after a crash: the same command with --resume latest; from the start if there is no state yet."""
        outcome = self.train(name, "--resume", "latest", strikes=strikes, **options)
        if outcome.code == 2 and "no complete state folder" in outcome.output:
            return self.train(name, strikes=strikes, **options)
        return outcome

    def killed_and_resumed(self, backward: int) -> str:
        """The digest of what a run comes to that is killed after its n-th backward pass, and goes on."""
        assert self.train("killed", strikes=[Strike("library.train.runtime.Runtime.backward", backward, "after")]).code == -KILL
        outcome = self.go_on("killed")
        assert outcome.code == 0, outcome.output
        return tensors_hash(self.output("killed") / "toad.safetensors")

    def with_workers(self) -> str:
        """The digest of what a run comes to whose pictures two loader processes read."""
        assert self.train("workers", max_data_loader_n_workers=2).code == 0
        return tensors_hash(self.output("workers") / "toad.safetensors")

    def count_calls(self, name: str, functions: Sequence[str], **options: Any) -> Counter[str]:
        """How often a whole run calls each of the functions."""
        counts = self.folder / f"{name}.counts.json"
        arguments = ["--config_file", str(self.config(name, **options))]
        outcome = self._finished(name, _train_counting, self.script, arguments, list(functions), counts)
        assert outcome.code == 0, outcome.output
        return Counter(json.loads(counts.read_text(encoding="utf-8")))

    def _finished(self, name: str, target: Callable, *arguments: Any) -> Outcome:
        log = self.folder / f"{name}.log"
        process = process_context().Process(target=target, args=(log, *arguments))
        process.start()
        process.join()
        return Outcome(process.exitcode, log.read_text(encoding="utf-8"))

    def events(self, name: str, rank: int = 0) -> list[dict[str, Any]]:
        """The events of all runs into this folder, the earliest run first. A line that is not whole yet waits."""
        file = "events.jsonl" if rank == 0 else f"events.rank{rank}.jsonl"
        logs = sorted(self.output(name).glob(f"*-runs/*/{file}"))
        lines = [line for log in logs for line in log.read_text(encoding="utf-8").split("\n")[:-1]]
        return sorted((json.loads(line) for line in lines), key=lambda event: event["time"])


def make_workshop(folder: Path, script: str = "train_network.py", **options: Any) -> Workshop:
    """Pictures of 64 pixels with captions of several tags, and a model; options that the script does not take are left out."""
    pictures = folder / "data" / "1_toad"
    pictures.mkdir(parents=True)
    for number in range(IMAGES):
        write_picture(pictures / f"{number}.png", number)
        (pictures / f"{number}.txt").write_text(f"toad {number}, green, wet, small, on a stone", encoding="utf-8")
    defaults = {
        "pretrained_model_name_or_path": str(tiny_sd1_folder(folder / "model", short=True)),
        "train_data_dir": str(folder / "data"),
        "resolution": 64,
        "caption_extension": ".txt",
        "network_module": "networks.lora",
        "network_dim": 2,
        "seed": 1,
        "learning_rate": 1e-3,
        "cache_latents": True,
    }
    taken = options_for(script)
    return Workshop(folder, {**{name: value for name, value in defaults.items() if name in taken}, **options}, script)


def write_picture(path: Path, seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(blocks.repeat(8, axis=0).repeat(8, axis=1)).save(path)


def tensors_hash(path: Path) -> str:
    """SHA-256 over names, types, shapes and bytes of the tensors; not over metadata, which tells the time."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(path).items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


# --- the processes ---


@functools.cache
def process_context() -> Any:
    """Processes that are forked from one that has imported everything and has no threads; elsewhere, fresh ones."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    settings = {**ONE_THREAD, "PYTHONPATH": str(WATCH)}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return context


def _train(log: Path, script: str, arguments: list[str], strikes: list[Strike], constants: dict[str, Any]) -> None:
    """What a process does: `python SCRIPT` with these arguments; everything printed goes to the file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    multiprocessing.set_start_method(None, force=True)  # for loader workers, as in a process of its own
    library.data.loader._cpu_threads = lambda: 3  # so that two workers are two on any machine
    os.fsync = lambda _: None  # what is written outlives a process that is killed; only a machine that fails needs more
    for name, value in constants.items():
        _wrap(name, lambda _, value=value: value)
    await_strikes(strikes)
    main(SCRIPTS[script], arguments)


def _train_as(
    place: dict[str, str], prepare: Callable[[], object] | None, log: Path, script: str, arguments: list[str]
) -> None:
    os.environ.update(place)
    if prepare is not None:
        prepare()
    _train(log, script, arguments, [], {})


def _train_counting(log: Path, script: str, arguments: list[str], functions: list[str], counts: Path) -> None:
    counter: Counter[str] = Counter()
    for function in functions:
        _wrap(function, functools.partial(_counted, counter, function))
    try:
        _train(log, script, arguments, [], {})
    finally:
        counts.write_text(json.dumps(counter), encoding="utf-8")


def _wrap(path: str, wrapper: Callable[[Any], Any]) -> None:
    """Puts something else in the place of what a path such as "package.module.Class.function" names."""
    owner, _, name = path.rpartition(".")
    try:
        holder: Any = importlib.import_module(owner)
    except ModuleNotFoundError:  # a class
        module, _, class_name = owner.rpartition(".")
        holder = getattr(importlib.import_module(module), class_name)
    setattr(holder, name, wrapper(getattr(holder, name)))


def _counted(counter: Counter[str], name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def counting(*arguments: Any, **keywords: Any) -> Any:
        counter[name] += 1
        return function(*arguments, **keywords)

    return counting


def await_strikes(strikes: Sequence[Strike]) -> None:
    """Lets them befall this process."""
    for strike in strikes:
        _wrap(strike.function, functools.partial(_struck, strike))


def _struck(strike: Strike, function: Callable) -> Callable:
    calls = 0

    @functools.wraps(function)
    def striking(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != strike.call:
            return function(*arguments, **keywords)
        if strike.when == "before":
            _happen(strike)
        result = function(*arguments, **keywords)
        if strike.when == "half-way":
            path = next(argument for argument in arguments if isinstance(argument, Path))
            os.truncate(path, path.stat().st_size // 2)
        if strike.when != "before":
            _happen(strike)
        return result

    return striking


def _happen(strike: Strike) -> None:
    if strike.mishap is not None:
        strike.mishap()
        return
    sys.stdout.flush()
    os.kill(os.getpid(), strike.signal)
