"""The log store's figures: lines a second, bytes a line, a search's time, memory; beside plain appends and a scan of a file.

    python bench/logs.py [--lines 1000000]

Floors in the same run: the same lines written to a text file with one flush to disk per batch, and a linear search of that file.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import LogLine, LogQuery

BATCH = 5000
NEEDLE = "needle777"
QUERIES = {
    "one training, newest 100": 'category:"easymaker.training" AND trainingId:"training-7"',
    "a word": "checkpoint",
    "a word of one line": NEEDLE,
    "errors of a training": "logLevel:ERROR AND trainingId:training-3",
    "Korean word": "학습",
    "phrase": '"disk almost full"',
    "wildcard": "body:check*",
    "number range": "step:[500 TO 600]",
    "a minute": "time:[2026-01-01T00:30:00Z TO 2026-01-01T00:31:00Z]",
    "negation": "NOT epoch",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, default=None, help="where to write; a temporary directory otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        asyncio.run(measure(Path(directory), arguments.lines))


async def measure(directory: Path, line_count: int) -> None:
    """Fill a store, then search it."""
    before = resident_bytes()
    batches = [made(start, min(BATCH, line_count - start)) for start in range(0, line_count, BATCH)]
    # The lines held here are not the store's; without this, collecting them would stop the event loop and be measured.
    gc.freeze()
    held = resident_bytes()
    print(f"{line_count} lines of {len(batches[0][0].body)} characters or so in appends of {BATCH}")
    file_seconds = write_file(directory / "lines.txt", batches)
    print(f"floor: text file, a flush per append     {line_count / file_seconds:12,.0f} lines/s")
    async with TantivyLogs(directory / "logs", LogStoreSettings()) as logs:
        began = time.perf_counter()
        # Four shippers at once, as four instances would.
        ticking = asyncio.create_task(longest_gap())
        await asyncio.gather(*(ship(logs, batches[number::4]) for number in range(4)))
        seconds = time.perf_counter() - began
        print(f"log store, every append on disk          {line_count / seconds:12,.0f} lines/s  ({seconds:.1f} s)")
        ticking.cancel()
        print(f"longest standstill of the event loop     {(await ticking) * 1000:12.1f} ms")
        size = sum(path.stat().st_size for path in (directory / "logs").rglob("*") if path.is_file())
        print(f"on disk                                  {size / line_count:12.0f} bytes a line ({size / 1e6:.0f} MB)")
        print(
            f"memory while writing                     {(resident_bytes() - held) / 1e6:12.0f} MB over the lines held by this script"
        )
        await one_by_one(logs)
        scan = scan_file(directory / "lines.txt")
        print(f"floor: linear search of the text file    {scan * 1000:12.1f} ms")
        for name, text in QUERIES.items():
            await search(logs, name, text)
        await search(logs, "page 2 of everything", "", is_second=True)
    print(f"memory of the process before anything    {before / 1e6:12.0f} MB")
    await idle(directory / "logs")


async def ship(logs: TantivyLogs, batches: Sequence[Sequence[LogLine]]) -> None:
    """One shipper: a batch after the other."""
    for batch in batches:
        await logs.append(batch)


async def longest_gap() -> float:
    """Seconds that the event loop was kept longest, until cancelled: what the writing threads take from it."""
    longest = 0.0
    while True:
        began = time.perf_counter()
        try:
            await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            return longest
        longest = max(longest, time.perf_counter() - began - 0.001)


async def one_by_one(logs: TantivyLogs) -> None:
    """The time until a single line is on disk, alone and beside others."""
    alone: list[float] = []
    for number in range(10):
        line = replace(made(number, 1)[0], source="alone")
        began = time.perf_counter()
        await logs.append([line])
        alone.append(time.perf_counter() - began)
    print(
        f"append of one line, p50                  {statistics.median(alone) * 1000:12.1f} ms (200 ms of it is gathering)"
    )
    began = time.perf_counter()
    await asyncio.gather(*(logs.append([replace(made(0, 1)[0], source=f"many-{number}")]) for number in range(1000)))
    print(f"1000 appends of one line at once         {(time.perf_counter() - began) * 1000:12.1f} ms")


async def search(logs: TantivyLogs, name: str, text: str, *, is_second: bool = False) -> None:
    """The median time of a search."""
    query = LogQuery("app", text)
    if is_second:
        query = replace(query, cursor=(await logs.search(query)).cursor)
    times: list[float] = []
    total_count = 0
    for _ in range(25):
        began = time.perf_counter()
        total_count = (await logs.search(query)).total_count
        times.append(time.perf_counter() - began)
    p50, worst = statistics.median(times) * 1000, max(times) * 1000
    print(f"search: {name:32s} {p50:12.2f} ms p50, {worst:.1f} max, {total_count} found")


async def idle(root: Path) -> None:
    """What an open store with these lines costs while nothing happens, in a process of its own."""
    script = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "def rss(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "bare = rss()\n"
        "from modelyard.logstore.backends.tantivy.store import TantivyLogs\n"
        "from modelyard.logstore.port import LogQuery\n"
        "async def main():\n"
        "    async with TantivyLogs(Path(sys.argv[1])) as logs:\n"
        "        opened = rss()\n"
        "        await logs.search(LogQuery('app', 'checkpoint'))\n"
        "        print(bare, opened, rss())\n"
        "asyncio.run(main())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(root), stdout=asyncio.subprocess.PIPE, env=environment
    )
    output, _ = await child.communicate()
    bare, opened, searched = (int(number) / 1e6 for number in output.split())
    print(
        f"idle: open store over a bare interpreter {opened - bare:12.0f} MB; after a first search {searched - bare:.0f} MB"
    )


def made(start: int, count: int) -> list[LogLine]:
    """Lines like those of trainings: mostly epochs, some checkpoints, a few errors, some Korean."""
    chance = random.Random(start)
    source = start // BATCH % 20
    lines: list[LogLine] = []
    for number in range(start, start + count):
        # One line is sure to hold the needle that is searched for.
        kind = 0.96 if number == 777 else chance.random()
        if kind < 0.9:
            body = (
                f"epoch {number % 100} step {number} loss={chance.random():.6f} accuracy={chance.random():.4f} lr=0.001"
            )
        elif kind < 0.95:
            body = f"checkpoint saved to /root/easymaker/checkpoint/{number:08d} in {chance.random():.2f} s"
        elif kind < 0.99:
            body = f"학습 {number % 100} 단계가 완료되었습니다 needle{number}"
        else:
            body = f"warning: disk almost full, {number % 90} MB left"
        lines.append(
            LogLine(
                source=f"instance-{source}",
                position=number,
                time=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number * 10),
                level="ERROR" if kind > 0.99 else "INFO",
                category="easymaker.training",
                log_type="NHNCloud-AIEasyMaker",
                app_key="app",
                body=body,
                fields={"trainingId": f"training-{source}", "step": str(number % 1000)},
            )
        )
    return lines


def write_file(path: Path, batches: Sequence[Sequence[LogLine]]) -> float:
    """Seconds to write the bodies as text with a flush to disk per batch."""
    began = time.perf_counter()
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            file.writelines(f"{line.body}\n" for line in batch)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - began


def scan_file(path: Path) -> float:
    """Median seconds of a search through the text."""
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        with path.open("rb") as file:
            sum(1 for line in file if b"checkpoint" in line)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def resident_bytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
