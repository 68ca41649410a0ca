"""Logs by offset and as server-sent events: whole lines, no secrets, nothing twice, nothing lost."""
from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import log_feed, logs
from service.log_feed import LogFeed, LogFeeds, follow
from service.logs import JobLog, shown
from service.masking import mask


def write(folder: Path, stage: str, text: str) -> None:
    path = folder / "stages" / f"{stage}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text)


def test_stages_follow_each_other(tmp_path: Path) -> None:
    log = JobLog(tmp_path)
    assert (log.read().text, log.tail(), log.size()) == ("", "", 0)
    write(tmp_path, "preparing", "a\nb\n")
    part = log.read()
    assert (part.text, part.next_offset) == ("a\nb\n", 4)
    write(tmp_path, "training", "c\nhalf")
    part = log.read(part.next_offset)
    assert (part.text, part.next_offset) == ("c\n", 6)
    assert log.read(part.next_offset).next_offset == 6
    assert log.read(part.next_offset, to_the_end=True).text == "half"
    assert log.read(2).text == "b\nc\n"
    assert log.read(10**9).text == ""
    assert log.tail() == "a\nb\nc\nhalf"
    assert log.tail(7) == "c\nhalf"


def test_a_line_without_an_end_is_shown_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LONGEST_LINE", 10)
    write(tmp_path, "training", "x" * 25)
    part = JobLog(tmp_path).read(0, most=20)
    assert part.next_offset == 20


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("1%\r50%\r100%\ndone\n", "100%\ndone\n"),
        ("1%\r50%\r\n", "50%\n"),
        ("windows\r\nlines\r\n", "windows\nlines\n"),
        ("key tadpole_abcdefghij_SECRET9 used\n", "key tadpole_abcdefghij_*** used\n"),
        ("PUT /storage/u/abc.DEF-1 x\n", "PUT /storage/u/*** x\n"),
        ("whsec_ab+/c= x\n", "whsec_*** x\n"),
        ("hf_abcdefghijklmnopqrstu x", "hf_*** x"),
        ("https://me:pass@host/x", "https://me:***@host/x"),
        ("?X-Amz-Credential=AK%2F1&X-Amz-Signature=0f&x=1", "?X-Amz-Credential=***&X-Amz-Signature=***&x=1"),
    ],
)
def test_what_people_see(raw: str, text: str) -> None:
    assert shown(raw.encode()) == text


def test_plain_text_is_not_masked() -> None:
    text = "tadpole_service is at http://127.0.0.1:8600/page with whsec and hf_x"
    assert mask(text) == text


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8), max_size=12), st.integers(1, 40))
def test_pieces_of_any_size_make_the_whole(written: list[str], most: int) -> None:
    with TemporaryDirectory() as folder:
        for stage, line in zip(itertools.cycle(["preparing", "training"]), sorted(written), strict=False):
            write(Path(folder), stage, line + "\n")
        log, offset, parts = JobLog(Path(folder)), 0, []
        while offset < log.size():
            part = log.read(offset, most=max(most, 40))
            assert part.next_offset > offset
            parts.append(part.text)
            offset = part.next_offset
        assert "".join(parts) == log.read(most=10**6).text


def collect(log: JobLog, offset: int, states: list[bool]) -> list[str]:
    async def run() -> list[str]:
        feed = LogFeed(log, lambda: states.pop(0) if len(states) > 1 else states[0], fresh_seconds=0)
        return [event async for event in follow(feed, offset, 0.001)]

    return asyncio.run(run())


def test_events_carry_the_offset_to_go_on_from(tmp_path: Path) -> None:
    write(tmp_path, "training", "a\nb\n")
    events = collect(JobLog(tmp_path), 0, [False, True])
    assert events == ["id: 4\ndata: a\ndata: b\n\n", "id: 4\nevent: end\ndata:\n\n"]
    assert collect(JobLog(tmp_path), 2, [True])[0] == "id: 4\ndata: b\n\n"


def test_the_last_line_is_sent_though_it_has_no_end(tmp_path: Path) -> None:
    write(tmp_path, "training", "a\nlast words")
    events = collect(JobLog(tmp_path), 0, [False, False, True])
    assert [event.split("\n")[1] for event in events] == ["data: a", "data: last words", "event: end"]


def test_silence_is_broken_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_feed, "KEEP_ALIVE_SECONDS", 0.003)
    events = collect(JobLog(tmp_path), 0, [False] * 7 + [True])
    assert ": still here\n\n" in events


def test_those_who_follow_one_log_share_the_looks_at_it(tmp_path: Path) -> None:
    write(tmp_path, "training", "a\nb\n")
    asked: list[bool] = []

    def is_over() -> bool:
        asked.append(True)
        return True

    async def run() -> list[list[str]]:
        feed = LogFeed(JobLog(tmp_path), is_over, fresh_seconds=60)

        async def read(offset: int) -> list[str]:
            return [event async for event in follow(feed, offset)]

        return await asyncio.gather(*(read(offset) for offset in [0] * 20 + [2]))

    *whole, rest = asyncio.run(run())
    assert whole == [["id: 4\ndata: a\ndata: b\n\n", "id: 4\nevent: end\ndata:\n\n"]] * 20
    assert rest[0] == "id: 4\ndata: b\n\n"
    assert len(asked) == 3  # from 0, from 2, and at the end


def test_who_leaves_keeps_nobody_from_looking(tmp_path: Path) -> None:
    write(tmp_path, "training", "a\n")
    entered, leave = threading.Event(), threading.Event()

    def is_over() -> bool:
        entered.set()
        assert leave.wait(10)
        return True

    async def run() -> list[str]:
        feed = LogFeed(JobLog(tmp_path), is_over)
        first = asyncio.create_task(feed.look(0))
        await asyncio.to_thread(entered.wait, 10)
        first.cancel()
        leave.set()
        return [event async for event in follow(feed, 0)]

    assert asyncio.run(run())[-1].endswith("event: end\ndata:\n\n")


def test_a_feed_goes_with_the_last_who_follows(tmp_path: Path) -> None:
    feeds, made = LogFeeds(), []

    def make() -> LogFeed:
        made.append(True)
        return LogFeed(JobLog(tmp_path), lambda: True)

    first = feeds.of("a", make)
    assert feeds.of("a", make) is first
    assert feeds.of("b", make) is not first
    del first
    gc.collect()
    feeds.of("a", make)
    assert len(made) == 3
