"""What a job in bubblewrap can and cannot do. tests/service_real/test_sandboxed.py runs these, too, and does not skip them."""
from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.executors import sandbox
from service.executors.child import put_off_termination
from service.executors.sandbox import statement
from tests.service.executors.jobs import PATIENCE_SECONDS, local, over, running, shell, text, wait_for

WHY_NOT = sandbox.problem()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


def printed(tmp_path: Path, script: str, **more: object) -> str:
    """What a job prints in the sandbox."""
    executor = local(tmp_path, "always")
    handle = executor.submit(shell(tmp_path, script, **more))
    assert over(executor, handle).state == "ended"
    return executor.logs(handle).decode()


def test_only_its_own_folder_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").write_text("weights", encoding="utf-8")
    places = f"/ /usr {Path(__file__).parent} {tmp_path} {tmp_path}/models {tmp_path}/runs . /tmp"
    script = f"cat {tmp_path}/models/base; echo; for place in {places}; do touch $place/new 2>/dev/null && echo $place; done"
    assert printed(tmp_path, script, readable=(tmp_path / "models",)).split() == ["weights", ".", "/tmp"]
    assert (tmp_path / "job" / "new").exists()
    assert not Path("/tmp/new").exists()


def test_what_the_service_keeps_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "service.sqlite3").write_text("keys", encoding="utf-8")
    assert printed(tmp_path, f"ls {tmp_path}; cat {tmp_path}/service.sqlite3 /etc/shadow 2>/dev/null").split() == ["job"]


def test_there_is_no_network(tmp_path: Path) -> None:
    """Not even to this machine; but among the processes of the job."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})) == 0, socket.create_server(('127.0.0.1', 0)) is not None)"
        argv = ("/bin/sh", "-c", f'exec {__import__("sys").executable} -I -S -c "{script}"')
        executor = local(tmp_path, "always")
        for attempt, network in ((1, False), (2, True)):
            spec = shell(tmp_path, "", attempt=attempt, network=network, log=tmp_path / f"{attempt}.log")._replace(argv=argv)
            over(executor, executor.submit(spec))
    assert text(tmp_path / "1.log") == "False True\n"
    assert text(tmp_path / "2.log") == "True True\n"


def test_it_sees_no_processes_but_its_own(tmp_path: Path) -> None:
    names = printed(tmp_path, "cat /proc/[0-9]*/comm").split()
    assert set(names) <= {"bwrap", "sh", "cat"}


def test_a_canceled_job_can_save(tmp_path: Path) -> None:
    executor = local(tmp_path, "always")
    with running(executor, shell(tmp_path, "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done")) as handle:
        wait_for(lambda: executor.logs(handle))
        executor.cancel(handle)
        assert over(executor, handle)[:3] == ("ended", 143, "canceled")
        assert executor.logs(handle).endswith(b"saved\n")


def test_what_is_asked_to_end_before_it_has_begun_ends_as_it_begins() -> None:
    argv = [sys.executable, "-ISc", sandbox.LISTENING, "/bin/sleep", "1000"]
    with subprocess.Popen(argv, preexec_fn=put_off_termination) as job:
        job.terminate()
        try:
            assert job.wait(PATIENCE_SECONDS) == -signal.SIGTERM
        finally:
            job.kill()


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    executor = local(tmp_path, "always")
    with running(executor, shell(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.05; done")) as handle:
        wait_for(lambda: executor.logs(handle))
        executor.cancel(handle, grace=0.3)
        assert over(executor, handle)[:3] == ("ended", 137, "canceled")


def test_it_is_used_where_it_is_there(tmp_path: Path) -> None:
    executor = local(tmp_path, "auto")
    handle = executor.submit(shell(tmp_path, f"ls {tmp_path}"))
    over(executor, handle)
    assert executor.logs(handle).split() == [b"job"]
    assert "bubblewrap" in executor.statement
    assert "without a sandbox" in statement("never")
