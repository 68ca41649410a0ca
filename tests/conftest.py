"""For all tests: one thread a process, as there is a process for each core; no GPU; long files first; no hurry for hypothesis."""
import os
import signal

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; a forked process cannot use the threads of its parent, either
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the same tests everywhere: numbers are those of the CPU, and a forked process cannot use a GPU
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a shell: the runs that tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# What lands must not fail by an example that its change has nothing to do with: new ones are looked for on developers' machines.
settings.register_profile("tadpole", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tadpole")

LONG = ("options", "train", "families", "sampling", "bad_input", "jobs", "training")  # folders


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take files in this order (pyproject.toml): with the long ones done, they come to their end at about the same time."""
    places = {folder: place for place, folder in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(LONG)))
