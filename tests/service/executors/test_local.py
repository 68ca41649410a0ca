"""Jobs as processes of this machine: they outlive the service, end wholly, and tell how."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from service.executors import processes
from service.executors.base import Limits
from service.executors.child import NICENESS
from service.executors.nodes import runner_command
from tests.service.executors.jobs import PATIENCE_SECONDS, is_gone, local, over, pid_in, record, running, shell, text, wait_for

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the jobs are scripts of the shell")

ROOT = Path(__file__).resolve().parents[3]
LINUX = pytest.mark.skipif(not processes.HAS_PROC, reason="only Linux gives orphans to whom they belong")
SERVICE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from service.executors.local import LocalExecutor
from tests.service.executors.jobs import shell
folder = Path(sys.argv[2])
LocalExecutor(folder / "runs", "never").submit(shell(folder, sys.argv[3]))
print("submitted", flush=True)
sys.stdin.read()
"""
LAUNCHER = """
import os, signal, subprocess, sys
training = subprocess.Popen(["/bin/sh", sys.argv[-1]], env={**os.environ, "LOCAL_RANK": "0"})
signal.signal(signal.SIGTERM, lambda *_: (training.kill(), os._exit(1)))
sys.exit(training.wait())
"""
STRAY = "setsid sh -c 'trap \"\" TERM HUP; echo $$ > stray.new; mv stray.new stray; exec sleep 1000' < /dev/null & "


# --- how it ends ---


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("true", 0, ""),
        ("exit 3", 3, "it failed with exit code 3"),
        ("exit 2", 2, "a mistake in what it was given: the end of its log says which"),
        ("kill -SEGV $$", 139, "killed by SIGSEGV"),
        ("kill -KILL $$", 137, "killed by SIGKILL, as the system does when memory is used up"),
        ("echo torch.OutOfMemoryError: CUDA out of memory.; exit 1", 1, "memory is used up: a smaller batch or resolution, or a larger machine, would help"),
        ("echo 'error: memory is used up (HIP)'; exit 1", 1, "memory is used up: a smaller batch or resolution, or a larger machine, would help"),
    ],
)
def test_exit_codes(tmp_path: Path, script: str, code: int, reason: str) -> None:
    executor = local(tmp_path)
    status = over(executor, executor.submit(shell(tmp_path, script)))
    assert (status.state, status.exit_code, status.reason) == ("ended", code, reason)


def test_both_outputs_are_in_the_log(tmp_path: Path) -> None:
    executor = local(tmp_path)
    handle = executor.submit(shell(tmp_path, "echo first; echo second >&2; printf 'third'"))
    over(executor, handle)
    assert executor.logs(handle) == b"first\nsecond\nthird"
    assert executor.logs(handle, offset=6, most=6) == b"second"


@pytest.mark.parametrize("argv", [("/no/such/program",), ("/bin/sh", "-c", "true\0")])
def test_what_cannot_be_started_is_told(tmp_path: Path, argv: tuple[str, ...]) -> None:
    executor = local(tmp_path)
    status = over(executor, executor.submit(shell(tmp_path, "")._replace(argv=argv)))
    assert (status.state, status.exit_code) == ("ended", 126)
    assert status.reason.startswith("it could not be started: ")


def test_the_code_of_the_training_counts_not_that_of_its_launcher(tmp_path: Path) -> None:
    executor = local(tmp_path)
    script = "printf 'pid 1\\npid 2\\nexit 2\\nexit 143\\n' > $TADPOLE_STATUS_FILE; exit 1"
    assert over(executor, executor.submit(shell(tmp_path, script))).exit_code == 2


def test_sockets_of_a_job_have_room_for_their_paths_however_deep_the_data_lies(tmp_path: Path) -> None:
    """Data loaders listen at such places; where they cannot, their training would wait for ever."""
    deep = tmp_path / ("d" * 120)
    program = (
        "import os, pathlib, socket, tempfile; place = pathlib.Path(tempfile.mkdtemp(prefix='pymp-'), 'listener-12345678');"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(str(place)); print(os.environ['TMPDIR'], place.resolve())"
    )
    executor = local(deep)
    handle = executor.submit(shell(deep, "")._replace(argv=(sys.executable, "-c", program)))
    assert over(executor, handle).exit_code == 0, executor.logs(handle)
    name, place = executor.logs(handle).decode().split()
    assert Path(place).is_relative_to(record(deep, shell(deep, "")).folder)  # its content is on the disk of the data
    assert not Path(name).parent.exists() and not Path(place).parent.exists()


# --- who asks may die ---


def test_a_job_outlives_the_process_that_submitted_it(tmp_path: Path) -> None:
    script = "echo before; while [ ! -e go ]; do sleep 0.05; done; echo after; exit 5"
    command = [sys.executable, "-c", SERVICE, str(ROOT), str(tmp_path), script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == "submitted\n"
        wait_for(lambda: text(tmp_path / "log.txt") == "before\n")
        os.kill(service.pid, signal.SIGKILL)
    executor = local(tmp_path)
    handle = shell(tmp_path, script).handle
    adopted = executor.adopt(handle)
    assert adopted is not None
    assert adopted.state == "running"
    (tmp_path / "job" / "go").touch()
    assert over(executor, handle).exit_code == 5
    assert text(tmp_path / "log.txt") == "before\nafter\n"


def test_of_two_runners_one_gets_the_job(tmp_path: Path) -> None:
    executor = local(tmp_path)
    spec = shell(tmp_path, "echo once >> times")
    record(tmp_path, spec).write_spec(spec._replace(sandbox="never"))
    runners = [subprocess.Popen(runner_command(record(tmp_path, spec).folder)) for _ in range(3)]
    assert [runner.wait() for runner in runners] == [0, 0, 0]
    assert over(executor, spec.handle).exit_code == 0
    assert text(tmp_path / "job" / "times") == "once\n"


def test_submitting_again_changes_nothing(tmp_path: Path) -> None:
    spec = shell(tmp_path, "echo once >> times")
    executors = [local(tmp_path) for _ in range(3)]
    threads = [threading.Thread(target=executor.submit, args=(spec,)) for executor in executors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    over(executors[0], spec.handle)
    assert executors[0].submit(spec) == spec.handle
    assert over(local(tmp_path), spec.handle).exit_code == 0
    assert text(tmp_path / "job" / "times") == "once\n"


def test_what_never_was_submitted_is_not_adopted(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, "true")
    assert executor.adopt(spec.handle) is None
    assert executor.status(spec.handle).state == "lost"
    record(tmp_path, spec).write_spec(spec)  # and there the service was killed
    assert executor.adopt(spec.handle) is None
    assert over(executor, executor.submit(spec)).exit_code == 0


def test_what_another_service_meant_to_start_long_ago_waits_for_its_runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a second attempt would run beside it."""
    executor, spec, go = local(tmp_path), shell(tmp_path, "exit 3"), tmp_path / "go"
    slow = ["/bin/sh", "-c", 'while [ ! -e "$0" ]; do sleep 0.05; done; exec "$@"', str(go)]
    monkeypatch.setattr("service.executors.local.runner_command", lambda folder: [*slow, *runner_command(folder)])
    own = record(tmp_path, spec)
    own.write_spec(spec._replace(sandbox="never"))  # and there the other service was killed
    os.utime(own.folder / "spec.json", (0, 0))
    handle = executor.submit(spec)
    try:
        assert executor.status(handle).state == "waiting"
    finally:
        go.touch()
    assert over(executor, handle).exit_code == 3


def test_after_a_reboot_a_job_is_lost(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, "sleep 1000")
    with running(executor, spec) as handle:
        started = record(tmp_path, spec).started
        facts = json.loads(started.read_text(encoding="utf-8"))
        started.write_text(json.dumps({**facts, "boot_id": "another"}), encoding="utf-8")
        status = local(tmp_path).adopt(handle)
        assert status is not None
        assert (status.state, status.reason) == ("lost", "the machine was started anew while it ran")
        assert executor.submit(spec) == handle  # a lost job is not started again under its handle
        started.write_text(json.dumps(facts), encoding="utf-8")


def test_another_process_with_the_same_id_is_not_the_job(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, "true")
    handle = executor.submit(spec)
    over(executor, handle)
    own = record(tmp_path, spec)
    (own.folder / "exit.json").unlink()
    facts = {"pid": os.getpid(), "start": "1", "boot_id": processes.boot_id(), "node": "here"}
    own.started.write_text(json.dumps(facts), encoding="utf-8")
    assert executor.status(handle).state == "lost"


@LINUX
def test_a_job_whose_runner_is_killed_is_lost_and_nothing_of_it_runs_on(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, STRAY + "echo $$ > main; sleep 1000")
    with running(executor, spec) as handle:
        main, stray = pid_in(tmp_path / "job" / "main"), pid_in(tmp_path / "job" / "stray")
        os.kill(json.loads(text(record(tmp_path, spec).started))["pid"], signal.SIGKILL)
        status = over(executor, handle)
        assert (status.state, status.reason) == ("lost", "its runner was killed")
        wait_for(lambda: is_gone(main) and is_gone(stray))


@LINUX
def test_what_becomes_another_program_just_then_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a moment, it shows no environment."""
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, processes.HANDLE_VARIABLE: str(tmp_path)}) as stray:
        environ, read, looks = Path(f"/proc/{stray.pid}/environ"), Path.read_bytes, []

        def read_bytes(path: Path) -> bytes:
            looks.append(path)
            return b"" if path == environ and looks.count(path) == 1 else read(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        processes.kill_those_of(str(tmp_path))
        try:
            assert is_gone(stray.pid)
        finally:
            stray.kill()


def test_a_job_that_is_interrupted_from_outside_can_save_and_is_lost(tmp_path: Path) -> None:
    """As when the machine is shut down."""
    executor, spec = local(tmp_path), shell(tmp_path, "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done")
    with running(executor, spec) as handle:
        wait_for(lambda: executor.logs(handle))
        os.kill(json.loads(text(record(tmp_path, spec).started))["pid"], signal.SIGTERM)
        status = over(executor, handle)
        assert (status.state, status.exit_code) == ("lost", 143)
        assert status.reason.startswith("it was interrupted")
        assert executor.logs(handle).endswith(b"saved\n")


# --- ending it ---


def test_a_job_is_asked_first(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, "trap 'echo saved; exit 143' TERM; echo ready; while :; do sleep 0.05; done")
    with running(executor, spec) as handle:
        wait_for(lambda: executor.logs(handle))
        executor.cancel(handle)
        executor.cancel(handle, grace=0)  # the first word counts
        status = over(executor, handle)
        assert (status.exit_code, status.reason) == (143, "canceled")
        assert executor.logs(handle).endswith(b"saved\n")


@LINUX
def test_a_launcher_does_not_end_what_is_saving(tmp_path: Path) -> None:
    """Accelerate's kills it after 30 seconds, and a second signal that comes late has it leave at once. This one has no patience at all."""
    package = tmp_path / "job" / "accelerate" / "commands"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "launch.py").write_text(LAUNCHER, encoding="utf-8")
    script = tmp_path / "job" / "train.sh"
    saving = "echo saving; while [ ! -e go ]; do sleep 0.05; done; echo saved; exit 143"
    script.write_text(f"trap '{saving}' TERM; echo ready; while :; do sleep 0.05; done", encoding="utf-8")
    executor = local(tmp_path)
    spec = shell(tmp_path, "", processes=2)._replace(argv=(sys.executable, str(script)))
    with running(executor, spec) as handle:
        wait_for(lambda: b"ready" in executor.logs(handle))
        executor.cancel(handle, grace=PATIENCE_SECONDS)
        wait_for(lambda: b"saving" in executor.logs(handle) or executor.status(handle).state == "ended")
        (tmp_path / "job" / "go").touch()
        assert over(executor, handle).reason == "canceled"
        assert executor.logs(handle).endswith(b"saved\n")


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    executor = local(tmp_path)
    with running(executor, shell(tmp_path, "trap '' TERM; echo ready; while :; do sleep 0.05; done")) as handle:
        wait_for(lambda: executor.logs(handle))
        executor.cancel(handle, grace=0.3)
        status = over(executor, handle)
        assert (status.exit_code, status.reason) == (137, "canceled")


@LINUX
def test_canceling_reaches_what_has_left_the_session(tmp_path: Path) -> None:
    executor = local(tmp_path)
    with running(executor, shell(tmp_path, f"({STRAY}); sleep 1000")) as handle:
        stray = pid_in(tmp_path / "job" / "stray")
        executor.cancel(handle, grace=0.3)
        assert over(executor, handle).reason == "canceled"
        assert is_gone(stray)


@LINUX
def test_nothing_is_left_of_a_job_that_ended_by_itself(tmp_path: Path) -> None:
    executor = local(tmp_path)
    script = STRAY.replace('trap "" TERM HUP; ', "") + "while [ ! -e stray ]; do sleep 0.05; done; exit 4"
    handle = executor.submit(shell(tmp_path, script))
    assert over(executor, handle).exit_code == 4
    assert is_gone(pid_in(tmp_path / "job" / "stray"))


def test_what_is_canceled_before_it_starts_never_starts(tmp_path: Path) -> None:
    executor, spec = local(tmp_path), shell(tmp_path, "touch ran")
    executor.cancel(spec.handle)
    assert executor.status(spec.handle)[:3] == ("ended", 143, "canceled before it started")
    executor.submit(spec)
    wait_for(lambda: (record(tmp_path, spec).folder / "exit.json").exists())
    assert executor.status(spec.handle)[:3] == ("ended", 143, "canceled before it started")
    assert not (tmp_path / "job" / "ran").exists()


# --- what it may ---


def test_limits_are_set(tmp_path: Path) -> None:
    limits = Limits(file_bytes=1 << 20, open_files=77)
    executor = local(tmp_path)
    handle = executor.submit(shell(tmp_path, "ulimit -f; ulimit -n; ulimit -c; umask", limits=limits))
    over(executor, handle)
    blocks, *others = executor.logs(handle).decode().split()
    assert int(blocks) in (1024, 2048)  # of 1024 or 512 bytes, by the shell
    assert others == ["77", "0", "0077"]


@LINUX
def test_jobs_give_way_to_the_service(tmp_path: Path) -> None:
    executor = local(tmp_path)
    over(executor, executor.submit(shell(tmp_path, "nice; cat /proc/self/autogroup")))
    niceness, *autogroup = text(tmp_path / "log.txt").splitlines()
    assert int(niceness) == min(19, os.nice(0) + NICENESS)
    if Path("/proc/self/autogroup").exists():
        assert autogroup[0].endswith(f"nice {NICENESS}")


def test_processes_are_limited_on_top_of_those_that_the_user_has(tmp_path: Path) -> None:
    executor = local(tmp_path)
    script = "awk '/Max processes/ { print $3, $4 }' /proc/self/limits"
    handle = executor.submit(shell(tmp_path, script, limits=Limits(processes=1000)))
    over(executor, handle)
    soft, hard = map(int, executor.logs(handle).split())
    assert soft == hard > 1000


def test_the_time_is_limited(tmp_path: Path) -> None:
    executor = local(tmp_path)
    status = over(executor, executor.submit(shell(tmp_path, "sleep 1000", limits=Limits(seconds=0.1))))
    assert (status.exit_code, status.reason) == (143, "it ran longer than the 0.1 seconds that it may")


def test_the_middle_of_a_long_log_is_left_out(tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i + 1)); done"
    executor = local(tmp_path)
    handle = executor.submit(shell(tmp_path, script, limits=Limits(log_bytes=10_000)))
    over(executor, handle)
    log = executor.logs(handle).decode()
    assert log.startswith("line 0\nline 1\n")
    assert log.endswith("line 2999\n")
    assert "bytes of the log are left out here" in log
    assert len(log) < 10_100


def test_secrets_of_the_service_do_not_reach_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TADPOLE_DATABASE_URL", "postgresql://pass-phrase")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "pass-phrase")
    executor = local(tmp_path)
    handle = executor.submit(shell(tmp_path, "env; tr '\\0' '\\n' < /proc/$PPID/environ || true", environment={"OWN": "1"}, device="1,2"))
    over(executor, handle)
    log = executor.logs(handle).decode()
    assert "pass-phrase" not in log
    assert {"OWN=1", "CUDA_VISIBLE_DEVICES=1,2", "HF_HUB_OFFLINE=1", f"HOME={tmp_path}/job/home"} <= set(log.split("\n"))


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious", encoding="utf-8")
    (tmp_path / "log.txt").symlink_to(tmp_path / "precious")
    executor = local(tmp_path)
    status = over(executor, executor.submit(shell(tmp_path, "echo overwritten")))
    assert status.exit_code == 126
    assert text(tmp_path / "precious") == "precious"


@pytest.mark.parametrize("job_id", ["../x", "a b", "", "x" * 300])
def test_handles_are_names(tmp_path: Path, job_id: str) -> None:
    with pytest.raises(ValueError, match="handle"):
        local(tmp_path).submit(shell(tmp_path, "true", job_id=job_id or "\n"))


def test_several_nodes_are_for_slurm(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need Slurm"):
        local(tmp_path).submit(shell(tmp_path, "true", nodes=2))
