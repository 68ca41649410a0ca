"""What test_ray.py has done in Ray's Python: prints what became of some jobs."""
from __future__ import annotations

import json
import sys
from pathlib import Path

from service.executors.ray import RayExecutor
from tests.service.executors.jobs import over, record, shell, wait_for


def main(address: str, folder: Path) -> None:
    executor = RayExecutor(folder / "runs", address, "never")
    first = shell(folder, "echo out; echo err >&2; exit 3")
    seen: dict[str, object] = {"known before": executor.adopt(first.handle) is not None}
    executor.submit(first)
    seen["ended"] = over(executor, first.handle)[:3]
    seen["log"] = executor.logs(first.handle).decode()
    wait_for(lambda: executor._job(first.handle).status.is_terminal())
    seen["ray says"] = (executor._job(first.handle).status.value, executor._job(first.handle).driver_exit_code)
    seen["submitted again"] = over(executor, executor.submit(first))[:2]
    (record(folder, first).folder / "exit.json").unlink()
    record(folder, first).started.unlink()
    executor.submit(first)  # Ray knows it
    seen["without exit.json"] = executor.status(first.handle)[:3]
    second = shell(folder, "trap 'sleep 4; echo saved; exit 143' TERM; echo ready; while :; do sleep 0.1; done", attempt=2, log=folder / "2.log")
    executor.submit(second)
    wait_for(lambda: executor.logs(second.handle))
    executor.cancel(second.handle)
    seen["canceled"] = over(executor, second.handle)[:3]
    seen["saved"] = executor.logs(second.handle).endswith(b"saved\n")
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
