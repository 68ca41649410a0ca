"""Jobs as the command line shows them: states, logs, cancellation, lists; what a service says no to."""
from __future__ import annotations

import json

import pytest

from service.jobs.board import NewJob
from service.jobs.states import FAILED, PREPARING, QUEUED
from service.keys import Caller
from service.services import Services


@pytest.fixture
def job_id(services: Services, caller: Caller) -> str:
    return services.board.create(caller, NewJob("cerebrium", name="frog", inputs={}, is_ready=True)).id


def write_log(services: Services, job_id: str, text: str) -> None:
    folder = services.settings.jobs_dir / job_id / "stages"
    folder.mkdir(parents=True)
    (folder / "training.log").write_text(text, encoding="utf-8")


def test_a_status(tadpole, server: str, key: str, job_id: str) -> None:
    ended = tadpole("check-job-status", job_id, key, "--server", server)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[0].split() == ["id", job_id] and "pending (queued)" in ended.out
    shown = json.loads(tadpole("check-job-status", job_id, "--api-key", key, "--server", server, "--json").out)
    assert (shown["id"], shown["status"], shown["state"]) == (job_id, "pending", "queued")
    assert "trainingLogs" not in shown


@pytest.mark.parametrize("written", ["True", "true"])
def test_a_status_with_its_log(tadpole, server: str, key: str, job_id: str, services: Services, written: str) -> None:
    write_log(services, job_id, "first line\nsecond line\n")
    words = ("check-job-status", job_id, key, "--include-logs", written, "--server", server)
    assert tadpole(*words).out.endswith("\nfirst line\nsecond line\n")
    assert json.loads(tadpole(*words, "--json").out)["trainingLogs"] == "first line\nsecond line\n"
    assert "second line" not in tadpole(*words[:3], "--include-logs", "False", *words[5:]).out


def test_include_logs_is_true_or_false(tadpole, server: str, key: str, job_id: str) -> None:
    ended = tadpole("check-job-status", job_id, key, "--include-logs", "yes", "--server", server)
    assert (ended.code, ended.err) == (2, "error: --include-logs: write True or False, not yes\n")


def test_logs_of_a_training_that_failed(tadpole, server: str, key: str, job_id: str, services: Services) -> None:
    write_log(services, job_id, "it began\nit broke\n")
    assert services.board.advance(job_id, QUEUED, PREPARING)
    assert services.board.advance(job_id, PREPARING, FAILED, error="the loss is\nno number")
    ended = tadpole("get-training-logs", job_id, key, "--server", server)
    assert ended == (1, "it began\nit broke\n", "error: the training failed: the loss is no number\n")
    told = tadpole("get-training-logs", job_id, key, "--server", server, "--json")
    assert told.code == 1 and json.loads(told.out)["status"] == "failed"


def test_logs_of_a_training_that_goes_on(tadpole, server: str, key: str, job_id: str, services: Services) -> None:
    write_log(services, job_id, "it began\n")
    assert tadpole("get-training-logs", job_id, key, "--no-follow", "--server", server) == (0, "it began\n", "")


def test_a_log_is_followed_to_its_end(tadpole, server: str, key: str, job_id: str, services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(services, job_id, "it began\n")
    looks = []

    def meanwhile(_seconds: float) -> None:
        looks.append(1)
        log = services.settings.jobs_dir / job_id / "stages" / "training.log"
        log.write_text(f"{log.read_text(encoding='utf-8')}look {len(looks)}\n", encoding="utf-8")
        if len(looks) == 2:
            services.board.cancel(services.keys.project("default"), job_id, "test")

    monkeypatch.setattr("service.cli.jobs.time.sleep", meanwhile)
    ended = tadpole("get-training-logs", job_id, key, "--server", server)
    assert ended.code == 1
    assert ended.out == "it began\nlook 1\nlook 2\n"
    assert ended.err.startswith("error: the training was canceled")


def test_a_job_is_canceled_and_stays_so(tadpole, server: str, key: str, job_id: str) -> None:
    for _ in range(2):
        assert tadpole("jobs", "cancel", job_id, key, "--server", server) == (0, "it is canceled\n", "")
    assert json.loads(tadpole("jobs", "cancel", job_id, key, "--json", "--server", server).out)["state"] == "canceled"


def test_a_job_of_somebody_else_is_not_there(tadpole, server: str, job_id: str, services: Services) -> None:
    other = services.keys.create(services.keys.project("other"), "other")
    ended = tadpole("check-job-status", job_id, other, "--server", server)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: there is no job") and ended.err.count("\n") == 1


def test_a_key_that_opens_nothing(tadpole, server: str, job_id: str) -> None:
    ended = tadpole("check-job-status", job_id, "tadpole_abc_wrong", "--server", server)
    assert ended == (1, "", "error: this API key is unknown, expired or revoked: tadpole login KEY stores another key\n")


def test_a_key_that_may_only_read(tadpole, server: str, job_id: str, services: Services) -> None:
    reader = services.keys.create(services.keys.project("default"), "reader", ["read"])
    assert tadpole("check-job-status", job_id, reader, "--server", server).code == 0
    ended = tadpole("jobs", "cancel", job_id, reader, "--server", server)
    assert (ended.code, ended.err) == (1, 'error: this key may not do that: it lacks the scope "train"\n')


@pytest.mark.parametrize("wrong", ["../../etc", "a/b", "x" * 65, "a?b"])
def test_what_is_no_id_is_not_asked_for(tadpole, home, wrong: str) -> None:
    ended = tadpole("check-job-status", wrong, "tadpole_a_b", "--server", "http://127.0.0.1:1")
    assert ended.code == 2 and "is no id of a training" in ended.err


def test_lists_have_the_newest_last(tadpole, server: str, key: str, services: Services, caller: Caller) -> None:
    ids = [services.board.create(caller, NewJob("cerebrium", name=f"frog {n}", inputs={})).id for n in range(12)]
    project = services.keys.project("default")
    for named in (project, "default"):
        ended = tadpole("get-most-recent-jobs", named, key, "--server", server)
        assert (ended.code, ended.err) == (0, "")
        assert [line.split()[0] for line in ended.out.splitlines()] == ["ID", *ids[2:]]
    listed = json.loads(tadpole("get-training-jobs", key, "--last-n", "3", "--json", "--server", server).out)
    assert [job["id"] for job in listed] == ids[9:]


def test_a_list_of_another_project(tadpole, server: str, key: str, job_id: str) -> None:
    ended = tadpole("get-most-recent-jobs", "elsewhere", key, "--server", server)
    assert ended.code == 1 and "not of elsewhere" in ended.err


def test_an_empty_list(tadpole, server: str, key: str) -> None:
    assert tadpole("get-training-jobs", key, "--server", server).out == "there are no trainings yet\n"
    assert json.loads(tadpole("get-training-jobs", key, "--json", "--server", server).out) == []
