"""The store itself: once and only once, confined, in order, bounded."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from modelyard.logstore.backends.tantivy.errors import (
    LineNotValid,
    LogStoreClosed,
    LogStoreInUse,
    LogStoreTooNew,
)
from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import BadQuery, LogLine, LogPage, LogQuery

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
MakeLine = Callable[..., LogLine]


def bodies(page: LogPage) -> list[str]:
    return [line["body"] for line in page.lines]


async def all_bodies(logs: TantivyLogs, query: LogQuery) -> list[str]:
    found: list[str] = []
    while True:
        page = await logs.search(query)
        found.extend(bodies(page))
        if page.cursor is None:
            assert page.total_count == len(found)
            return found
        query = replace(query, cursor=page.cursor)


async def test_a_line_comes_back_in_its_wire_form(logs: TantivyLogs, make_line: MakeLine) -> None:
    seoul = timezone(timedelta(hours=9))
    line = make_line(
        0,
        "one\ntwo",
        time=datetime(2026, 1, 2, 9, 0, 0, 123456, seoul),
        fields={"trainingId": "tr-1", "category": "mine"},
    )
    await logs.append([line])
    page = await logs.search(LogQuery("key-1"))
    assert page.lines == [
        {
            "trainingId": "tr-1",
            "category": "easymaker.training",
            "easymakerAppKey": "key-1",
            "logLevel": "INFO",
            "body": "one\ntwo",
            "logType": "NHNCloud-AIEasyMaker",
            "time": "2026-01-02T00:00:00.123Z",
        }
    ]
    assert (page.total_count, page.cursor) == (1, None)


async def test_lines_sent_again_are_kept_once(tmp_path: Path, settings: LogStoreSettings, make_line: MakeLine) -> None:
    lines = [make_line(number, f"line {number}") for number in range(10)]
    async with TantivyLogs(tmp_path, settings) as logs:
        assert await logs.last_position("instance-1") is None
        await logs.append(lines[:6])
        await logs.append(lines[3:8])
        await asyncio.gather(logs.append(lines[:8]), logs.append(lines[:8]))
        assert await logs.last_position("instance-1") == 7
    async with TantivyLogs(tmp_path, settings) as logs:
        assert await logs.last_position("instance-1") == 7
        await logs.append(lines)
        assert await logs.last_position("instance-1") == 9
        assert await all_bodies(logs, LogQuery("key-1", is_ascending=True)) == [line.body for line in lines]


async def test_many_appends_share_a_commit(tmp_path: Path, make_line: MakeLine) -> None:
    async with TantivyLogs(tmp_path, LogStoreSettings(gather_seconds=0.2)) as logs:
        began = time.monotonic()
        await asyncio.gather(*(logs.append([make_line(0, source=f"source-{number}")]) for number in range(200)))
        # Two hundred commits of their own would take at least twice as long: each waits for 0.2 s.
        assert time.monotonic() - began < 20
        assert (await logs.search(LogQuery("key-1"))).total_count == 200


async def test_a_full_batch_does_not_wait(tmp_path: Path, make_line: MakeLine) -> None:
    async with TantivyLogs(tmp_path, LogStoreSettings(gather_seconds=30, gather_lines=10)) as logs:
        async with asyncio.timeout(20):
            await logs.append([make_line(number) for number in range(40)])
        assert (await logs.search(LogQuery("key-1"))).total_count == 40


async def test_one_source_keeps_its_order(logs: TantivyLogs, make_line: MakeLine) -> None:
    same = [make_line(number, f"{number}", time=BEGIN) for number in range(300)]
    back = [make_line(300 + number, f"{300 + number}", time=BEGIN - timedelta(seconds=number)) for number in range(20)]
    await logs.append([*reversed(same[:100])])
    for start in range(100, 300, 40):
        await logs.append(same[start : start + 40])
    await logs.append(back)
    expected = [str(number) for number in range(320)]
    assert await all_bodies(logs, LogQuery("key-1", limit=7, is_ascending=True)) == expected
    assert await all_bodies(logs, LogQuery("key-1", limit=1000)) == expected[::-1]


async def test_pages_stay_while_lines_arrive(logs: TantivyLogs, make_line: MakeLine) -> None:
    await logs.append([make_line(number, f"{number}") for number in range(20)])
    for is_ascending in (False, True):
        seen: list[str] = []
        query = LogQuery("key-1", limit=3, is_ascending=is_ascending)
        for round_number in range(10):
            page = await logs.search(query)
            seen.extend(bodies(page))
            if page.cursor is None:
                break
            query = replace(query, cursor=page.cursor)
            late = BEGIN + timedelta(days=-1 if is_ascending else 1)
            await logs.append(
                [make_line(round_number, "new", source=f"other-{is_ascending}-{round_number}", time=late)]
            )
        counted = [body for body in seen if body != "new"]
        assert sorted(counted, key=int) == [str(number) for number in range(20)]
        assert "new" not in seen[:3]


async def test_following_misses_nothing_and_repeats_nothing(logs: TantivyLogs, make_line: MakeLine) -> None:
    query = LogQuery("key-1", "hello", limit=2)
    page = await logs.follow(query)
    assert page.lines == []
    await logs.append([make_line(number, f"hello {number}") for number in range(3)])
    seen: list[str] = []
    for number in range(6):
        page = await logs.follow(replace(query, cursor=page.cursor))
        seen.extend(bodies(page))
        # Printed long ago, arrived only now.
        await logs.append(
            [make_line(0, f"hello late {number}", source=f"late-{number}", time=BEGIN - timedelta(days=9))]
        )
    assert len(seen) == len(set(seen))
    assert seen[:4] == ["hello 0", "hello 1", "hello 2", "hello late 0"]


async def test_begin_belongs_and_end_does_not(logs: TantivyLogs, make_line: MakeLine) -> None:
    await logs.append([make_line(number, f"{number}") for number in range(10)])
    query = LogQuery("key-1", begin_at=BEGIN + timedelta(seconds=3), end_at=BEGIN + timedelta(seconds=6))
    assert bodies(await logs.search(query)) == ["5", "4", "3"]


@pytest.mark.parametrize(
    "query",
    [
        LogQuery("key-1", limit=0),
        LogQuery("key-1", limit=1001),
        LogQuery("key-1", cursor="nonsense"),
        LogQuery("key-1", cursor="äöü"),
        LogQuery("key-1", cursor="YTE"),
        LogQuery("key-1", begin_at=datetime(2026, 1, 1)),  # noqa: DTZ001  a time without an offset is what is refused
    ],
)
async def test_bad_requests_are_told(logs: TantivyLogs, query: LogQuery) -> None:
    with pytest.raises(BadQuery):
        await logs.search(query)


async def test_a_phrase_of_too_many_words_is_a_bad_query(logs: TantivyLogs, make_line: MakeLine) -> None:
    await logs.append([make_line(n, " ".join(f"w{5 * n + word}" for word in range(5))) for n in range(4000)])
    with pytest.raises(BadQuery, match="too many different words"):
        await logs.search(LogQuery("key-1", "w*-w*"))
    assert (await logs.search(LogQuery("key-1", "w1999*-w1999*"))).total_count == 2


async def test_lines_that_make_no_sense_harm_no_others(logs: TantivyLogs, make_line: MakeLine) -> None:
    bad = [
        make_line(-1),
        make_line(2**63, time=BEGIN),
        make_line(0, source=""),
        make_line(0, app_key=""),
        make_line(0, source="\ud800"),
        make_line(0, source="x" * 1000),
        make_line(0, time=datetime(2026, 1, 1)),  # noqa: DTZ001  a time without an offset is what is refused
    ]
    results = await asyncio.gather(
        *(logs.append([line]) for line in bad), logs.append([make_line(5)]), return_exceptions=True
    )
    assert [type(result) for result in results] == [LineNotValid] * len(bad) + [type(None)]
    assert await logs.last_position("instance-1") == 5


async def test_any_text_can_be_kept(logs: TantivyLogs, make_line: MakeLine) -> None:
    odd = ["\ud800 half", "nul \x00 byte", "", "😀 smile", "x" * 100_000, "긴 줄 " * 50_000]
    lines = [make_line(number, body, fields={"odd\x00name": body, "\udc80": "v"}) for number, body in enumerate(odd)]
    await logs.append(
        [
            *lines,
            make_line(9, time=datetime.min.replace(tzinfo=UTC)),
            make_line(10, time=datetime.max.replace(tzinfo=UTC)),
        ]
    )
    page = await logs.search(LogQuery("key-1"))
    assert page.total_count == len(odd) + 2
    assert bodies(await logs.search(LogQuery("key-1", "half"))) == ["? half"]
    assert bodies(await logs.search(LogQuery("key-1", "oddname:nul*"))) == ["nul \x00 byte"]


async def test_old_lines_go_and_their_positions_stay(
    tmp_path: Path, settings: LogStoreSettings, make_line: MakeLine
) -> None:
    now = BEGIN

    def clock() -> datetime:
        return now

    async with TantivyLogs(tmp_path, settings, clock=clock) as logs:
        await logs.append([make_line(0, source="quiet", time=now), make_line(0, "first", time=now)])
        now = BEGIN + timedelta(days=1)
        await logs.append([make_line(1, "second", time=now), make_line(2, "third", time=now + timedelta(hours=2))])
        assert len(list((tmp_path / "partitions").iterdir())) == 2
        assert await logs.remove_before(BEGIN) == 0
        # The first day goes as a directory, half of the second by its lines' times.
        assert await logs.remove_before(now + timedelta(hours=1)) == 3
        assert len(list((tmp_path / "partitions").iterdir())) == 1
        assert await all_bodies(logs, LogQuery("key-1")) == ["third"]
        assert await logs.remove_before(now + timedelta(days=3)) == 1
        assert await all_bodies(logs, LogQuery("key-1")) == []
    async with TantivyLogs(tmp_path, settings, clock=clock) as logs:
        assert [await logs.last_position(source) for source in ("quiet", "instance-1", "nobody")] == [0, 2, None]
        await logs.append([make_line(0, source="quiet"), make_line(3, "fourth", time=now)])
        assert await all_bodies(logs, LogQuery("key-1")) == ["fourth"]


@pytest.mark.slow
async def test_size_is_bounded_by_dropping_the_oldest(tmp_path: Path, make_line: MakeLine) -> None:
    limit = 600_000
    async with TantivyLogs(tmp_path, LogStoreSettings(gather_seconds=0, max_bytes=limit)) as logs:
        for start in range(0, 8_000, 1000):
            await logs.append([make_line(start + n, f"{os.urandom(40).hex()} {start + n}") for n in range(1000)])
        size = sum(path.stat().st_size for path in (tmp_path / "partitions").rglob("*") if path.is_file())
        page = await logs.search(LogQuery("key-1", limit=1))
        assert size < limit * 1.3
        assert 1000 < page.total_count < 8_000
        assert page.lines[0]["body"].endswith(" 7999")
        assert await logs.last_position("instance-1") == 7_999


async def test_a_set_back_clock_does_not_mix_partitions(
    tmp_path: Path, settings: LogStoreSettings, make_line: MakeLine
) -> None:
    now = BEGIN + timedelta(days=10)
    async with TantivyLogs(tmp_path, settings, clock=lambda: now) as logs:
        await logs.append([make_line(0)])
    now = BEGIN
    async with TantivyLogs(tmp_path, settings, clock=lambda: now) as logs:
        await logs.append([make_line(1)])
        assert await logs.last_position("instance-1") == 1
        assert (await logs.search(LogQuery("key-1"))).total_count == 2


async def test_a_second_writer_is_refused_and_a_reader_is_not(
    tmp_path: Path, logs: TantivyLogs, make_line: MakeLine
) -> None:
    root = tmp_path / "logs"
    with pytest.raises(LogStoreInUse, match=str(os.getpid())):
        await TantivyLogs(root).open()
    async with TantivyLogs(root, is_reader=True) as reader:
        for number in range(3):
            await logs.append([make_line(number)])
            assert (await reader.search(LogQuery("key-1"))).total_count == number + 1
        with pytest.raises(LogStoreClosed):
            await reader.append([make_line(9)])
    await logs.append([make_line(3)])


async def test_another_process_is_refused(tmp_path: Path, logs: TantivyLogs) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from modelyard.logstore.backends.tantivy.store import TantivyLogs\n"
        "asyncio.run(TantivyLogs(Path(sys.argv[1])).open())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert result.returncode == 1
    assert f"already being written by another server (process {os.getpid()})" in result.stderr


async def test_a_damaged_partition_is_set_aside(
    tmp_path: Path, settings: LogStoreSettings, make_line: MakeLine
) -> None:
    async with TantivyLogs(tmp_path, settings, clock=lambda: BEGIN) as logs:
        await logs.append([make_line(0, "old")])
    async with TantivyLogs(tmp_path, settings, clock=lambda: BEGIN + timedelta(days=1)) as logs:
        await logs.append([make_line(1, "new")])
    partitions = sorted((tmp_path / "partitions").iterdir())
    (partitions[0] / "meta.json").write_text("{ not json")
    (tmp_path / "partitions" / "2026-01-04.000000").mkdir()
    async with TantivyLogs(tmp_path, settings, clock=lambda: BEGIN + timedelta(days=2)) as logs:
        await logs.append([make_line(2, "newest")])
        assert await all_bodies(logs, LogQuery("key-1")) == ["newest", "new"]
    assert (tmp_path / "partitions" / f"{partitions[0].name}.broken").is_dir()


async def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "layout").write_text("99\n")
    with pytest.raises(LogStoreTooNew, match="99"):
        await TantivyLogs(tmp_path).open()
    (tmp_path / "layout").unlink()
    async with TantivyLogs(tmp_path):
        pass


async def test_closing_finishes_appends_and_then_refuses(tmp_path: Path, make_line: MakeLine) -> None:
    logs = TantivyLogs(tmp_path, LogStoreSettings(gather_seconds=5))
    with pytest.raises(LogStoreClosed):
        await logs.append([make_line(0)])
    await logs.open()
    waiting = asyncio.create_task(logs.append([make_line(0)]))
    await asyncio.sleep(0)
    await logs.close()
    await waiting
    with pytest.raises(LogStoreClosed):
        await logs.append([make_line(1)])
    async with TantivyLogs(tmp_path, is_reader=True) as reader:
        assert (await reader.search(LogQuery("key-1"))).total_count == 1


async def test_an_idle_store_gives_its_writer_back(tmp_path: Path, make_line: MakeLine) -> None:
    before = _threads_count("thrd-tantivy-index0")  # those of other tests' stores that are not gone yet
    async with TantivyLogs(tmp_path, LogStoreSettings(gather_seconds=0, rest_seconds=0.05)) as logs:
        await logs.append([make_line(0)])
        deadline = time.monotonic() + 10
        while _threads_count("thrd-tantivy-index0") > before and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        assert _threads_count("thrd-tantivy-index0") <= before
        await logs.append([make_line(1)])
        assert (await logs.search(LogQuery("key-1"))).total_count == 2


def _threads_count(name: str) -> int:
    """How many threads of the name this process has (the kernel keeps its first 15 characters)."""
    names: list[str] = []
    for path in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # it ended while we looked
            names.append(path.read_text().strip())
    return names.count(name[:15])
