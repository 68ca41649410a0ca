"""Imported by Python itself at its start (PYTHONPATH): writes down each time that weights are read, and can fill the disk."""
from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import shutil
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

LOG = "TESTS_WATCH_LOG"  # names the file to write to
FREE_BYTES = "TESTS_FREE_BYTES"  # what every disk says is free


def note(what: str) -> None:
    if path := os.environ.get(LOG):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(what + "\n")


def noting(what: str, function: Callable, is_a_read: Callable[..., bool] = lambda *_, **__: True) -> Callable:
    """The function, which writes down that it was called and returned."""

    @wraps(function)
    def noted(*arguments, **options):
        result = function(*arguments, **options)
        if is_a_read(*arguments, **options):
            note(what)
        return result

    return noted


def watch_safetensors(safetensors) -> None:
    real = safetensors.safe_open

    class WatchedFile:
        """A safetensors file of which names and shapes may be asked unnoticed."""

        def __init__(self, *arguments, **options):
            self._file = real(*arguments, **options)

        def __enter__(self):
            self._file.__enter__()
            return self

        def __exit__(self, *error):
            return self._file.__exit__(*error)

        def __getattr__(self, name):
            return getattr(self._file, name)

        def get_tensor(self, name):
            note("weights: safe_open.get_tensor")
            return self._file.get_tensor(name)

        def get_slice(self, name):
            return WatchedSlice(self._file.get_slice(name))

    class WatchedSlice:
        def __init__(self, real_slice):
            self._slice = real_slice

        def __getattr__(self, name):
            return getattr(self._slice, name)

        def __getitem__(self, index):
            note("weights: a slice")
            return self._slice[index]

    safetensors.safe_open = WatchedFile
    safetensors.deserialize = noting("weights: safetensors.deserialize", safetensors.deserialize)


def watch_torch(torch) -> None:
    note("imported torch")
    # With mmap, names and shapes come without a byte of the weights; whatever then uses them ends in load_state_dict.
    torch.load = noting("weights: torch.load", torch.load, lambda *_, **options: not options.get("mmap"))
    torch.nn.Module.load_state_dict = noting("weights: load_state_dict", torch.nn.Module.load_state_dict)


WATCHERS = {"safetensors": watch_safetensors, "torch": watch_torch}


class Finder(importlib.abc.MetaPathFinder):
    """Calls a watcher right after its module was imported."""

    def find_spec(self, name, path, target=None):
        watcher = WATCHERS.get(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path) if watcher else None
        if spec is None or spec.loader is None:
            return None
        run_module = spec.loader.exec_module

        def run_and_watch(module):
            run_module(module)
            watcher(module)

        spec.loader.exec_module = run_and_watch
        return spec


sys.meta_path.insert(0, Finder())
real_disk_usage = shutil.disk_usage


def disk_usage(path):
    found = real_disk_usage(path)
    free = os.environ.get(FREE_BYTES)
    return found._replace(free=int(free)) if free else found


shutil.disk_usage = disk_usage
