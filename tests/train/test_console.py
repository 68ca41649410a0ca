"""Messages reach the console or the file that was asked for; where there is no terminal, progress is a line now and then."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from library.config.options import LoggingOptions
from library.train import console
from library.train.console import LINES_PER_RUN, CountBar, ProgressBar, set_up_logging

log = logging.getLogger("library.train.something")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """As they were, afterwards."""
    found = [logging.getLogger(name) for name in console.OURS]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in found]
    yield
    for logger, (handlers, propagate, level) in zip(found, before, strict=True):
        logger.handlers[:], logger.propagate, logger.level = handlers, propagate, level


def test_messages_go_to_stderr(capsys):
    set_up_logging(LoggingOptions(), is_main=True)
    log.info("for the person")
    log.debug("for nobody")
    assert capsys.readouterr() == ("", "for the person\n")


def test_the_level_can_be_chosen(capsys):
    set_up_logging(LoggingOptions(console_log_level="ERROR"), is_main=True)
    log.warning("not this")
    log.error("this")
    assert capsys.readouterr().err == "this\n"


def test_other_processes_only_warn(capsys):
    set_up_logging(LoggingOptions(console_log_level="DEBUG"), is_main=False)
    log.info("said by the main process")
    log.warning("mine")
    assert capsys.readouterr().err == "mine\n"


def test_a_log_file_is_written_anew(tmp_path, capsys):
    path = tmp_path / "log.txt"
    path.write_text("of another run\n", encoding="utf-8")
    set_up_logging(LoggingOptions(console_log_file=str(path)), is_main=True)
    log.info("für dich")
    text = path.read_text(encoding="utf-8")
    assert text.endswith("INFO für dich\n")
    assert "another run" not in text
    assert capsys.readouterr().err == ""


def test_setting_up_twice_says_nothing_twice(capsys):
    for _ in range(2):
        set_up_logging(LoggingOptions(), is_main=True)
    log.info("once")
    assert capsys.readouterr().err == "once\n"


def lines_of_a_run(capsys, first_step: int, last_step: int, is_main: bool = True) -> list[str]:
    set_up_logging(LoggingOptions(), is_main)
    with ProgressBar(first_step, last_step, is_main) as progress:
        for step in range(first_step, last_step + 1):
            progress.update(step, 0.5, 1e-4)
    return capsys.readouterr().err.splitlines()


def test_progress_without_a_terminal(capsys):
    lines = lines_of_a_run(capsys, 1, 3)
    assert [line.split("  ")[:3] for line in lines] == [[f"step {step}/3", "loss 0.5000", "lr 1.00e-04"] for step in (1, 2, 3)]
    assert lines[-1].endswith("0:00:00 left")


def test_a_long_run_does_not_fill_the_log(capsys):
    lines = lines_of_a_run(capsys, 101, 100 + 10 * LINES_PER_RUN + 7)
    assert LINES_PER_RUN <= len(lines) <= LINES_PER_RUN + 2
    assert lines[-1].startswith(f"step {100 + 10 * LINES_PER_RUN + 7}/")


def test_other_processes_show_no_progress(capsys):
    assert lines_of_a_run(capsys, 1, 3, is_main=False) == []


def test_counts_are_lines_without_a_terminal(capsys):
    set_up_logging(LoggingOptions(), is_main=True)
    for total, by in ((7, 3), (1000, 4)):
        with CountBar("pictures", total, is_main=True) as bar:
            while bar.done < total:
                bar.advance(min(by, total - bar.done))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == ["pictures 3/7", "pictures 6/7", "pictures 7/7"]
    assert (len(lines[3:]), lines[-1]) == (LINES_PER_RUN, "pictures 1000/1000")


def test_other_processes_count_in_silence(capsys):
    set_up_logging(LoggingOptions(console_log_level="DEBUG"), is_main=True)
    with CountBar("pictures", 2, is_main=False) as bar:
        bar.advance(2)
    assert capsys.readouterr().err == ""
