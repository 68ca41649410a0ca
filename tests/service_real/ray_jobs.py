"""What test_ray.py has done in Ray's Python: prints what became of some jobs."""
from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import ray

from service.executors.base import ExecutorUnavailable
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
    seen["away"] = without_answer(folder)
    print(json.dumps(seen))


class Version(BaseHTTPRequestHandler):
    """All that Ray's client asks before it is asked anything itself."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"ray_version": ray.__version__}).encode())


def without_answer(folder: Path) -> str:
    """What is said of a job when Ray has gone away after it was first asked."""
    with HTTPServer(("127.0.0.1", 0), Version) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        executor = RayExecutor(folder / "runs", f"http://127.0.0.1:{server.server_port}")
        assert executor._client is not None
        server.shutdown()
    try:
        return executor.status("tadpole-j1-training-3").state
    except ExecutorUnavailable:
        return "nothing"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
