"""The metric store's figures: a durable write, a long history, a comparison, the way from event files; each beside a floor of the same run.

    python bench/metrics.py [--points 1000000] [--runs 1000] [--tensorboard PYTHON]

Floors: the same points as rows in a bare SQLite table with the same durability, and TensorBoard's own loader on the same event files, where
PYTHON is an interpreter that has the `tensorboard` package (any TensorFlow or PyTorch image has).
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sqlite3
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.engine import Database, sqlite_url
from modelyard.db.migrate import upgrade
from modelyard.eventfiles.reading import read_new
from modelyard.eventfiles.records import masked_crc
from modelyard.kit.paging import PageRequest
from modelyard.resources.metrics.collector import Collector
from modelyard.resources.metrics.model import Owner, Point, Run
from modelyard.resources.metrics.service import ComparisonRequest, HistoryRequest, Metrics
from modelyard.resources.projects.model import Caller, Project, TokenKind
from modelyard.resources.workloads.service import Workloads
from modelyard.testing.compute import FakeCompute

CALLER = Caller(Project("p", "p", "key", "tenant", "api", "store"), "bench", TokenKind.ACCESS)
BATCH = 1000
WRITES_A_SECOND = 10
METRICS = 10
EVENTS = 100_000
TENSORBOARD = """
import sys, time
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
begun = time.perf_counter()
count = sum(1 for _ in EventFileLoader(sys.argv[1]).Load())
print(count / (time.perf_counter() - begun))
"""


class Runs:
    """Made-up runs."""

    def __init__(self, count: int) -> None:
        now = datetime.now(UTC)
        self.runs = [
            Run(f"run-{n}", f"run {n}", "COMPLETE", now, "e", parameters={f"p{p}": str(n * p) for p in range(8)})
            for n in range(count)
        ]

    async def find_run(self, caller: Caller, run_id: str) -> Run:
        return self.runs[0]

    async def hold_run(self, session: AsyncSession, caller: Caller, run_id: str) -> Owner:
        return Owner("training", run_id, "p", "e")

    async def runs_of_experiment(self, caller: Caller, experiment_id: str) -> Sequence[Run]:
        return self.runs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--tensorboard", type=Path)
    parser.add_argument("--directory", type=Path, help="where to write; a temporary directory otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        asyncio.run(measure(Path(name), arguments.points, arguments.runs, arguments.tensorboard))


async def measure(directory: Path, point_count: int, run_count: int, tensorboard: Path | None) -> None:
    """All figures."""
    database = Database(sqlite_url(directory / "metrics.db"))
    await upgrade(database)
    metrics, runs = Metrics(database), Runs(run_count)
    for series_count in (1, 10, 1000):
        times: list[float] = []
        settling: list[float] = []
        waits: list[float] = []
        for number in range(100):
            points = batch(number, series_count)
            times.append(await timed(lambda p=points, c=series_count: metrics.write(runs, CALLER, f"w{c}", 0, p)))
            if number % WRITES_A_SECOND == WRITES_A_SECOND - 1:
                beside = asyncio.create_task(longest_wait(database))
                settling.append(await timed(lambda c=series_count: metrics.settle(f"w{c}")))
                beside.cancel()
                waits.append(await beside)
        show(f"write of {BATCH} points, {series_count} metrics", times)
        show(f"  what waits of {WRITES_A_SECOND} of them, put into series", settling)
        show("  the longest that another writer waits meanwhile", waits)
    show("  floor: the same rows in bare SQLite", [bare(directory / "bare.db", batch(n, 10)) for n in range(100)])
    for begin in range(0, point_count, 10_000):
        await metrics.write(runs, CALLER, "long", 0, curve("loss", begin, min(10_000, point_count - begin)))
    for max_points in (100, 1000, 5000):
        wanted = HistoryRequest(names=("loss",), max_points=max_points)
        times = [
            await timed(lambda w=wanted: metrics.report(runs, CALLER, "long", w, PageRequest())) for _ in range(10)
        ]
        show(f"history of {point_count:,} points in {max_points}", times)
    for run in runs.runs:
        await metrics.write(runs, CALLER, run.id, 0, [each for m in range(METRICS) for each in curve(f"m{m}", 0, 3)])
    whole, page = PageRequest(), PageRequest(1, 100)
    sorted_ = ComparisonRequest(filters=("metrics.m1>-9",), sort=("-metrics.m2:max", "parameters.p3"))
    for label, wanted, request in (
        ("all of them", ComparisonRequest(), whole),
        ("filtered, sorted, all of them", sorted_, whole),
        ("filtered, sorted, first 100", sorted_, page),
    ):
        times = [await timed(lambda w=wanted, r=request: metrics.compare(runs, CALLER, "e", w, r)) for _ in range(10)]
        show(f"comparison of {run_count} runs with {METRICS} metrics, {label}", times)
    await event_files(database, metrics, directory, tensorboard)
    await database.close()
    size = sum(path.stat().st_size for path in directory.glob("metrics.db*"))
    print(f"the database of all this: {size / 2**20:.1f} MiB")


async def longest_wait(database: Database) -> float:
    """Seconds that a writer who comes again and again has waited for its turn at most, until it is cancelled."""
    longest, begun = 0.0, time.perf_counter()
    with suppress(asyncio.CancelledError):
        while True:
            async with database.write() as session:
                await session.execute(text("SELECT 1"))
                longest = max(longest, time.perf_counter() - begun)
            await asyncio.sleep(0.001)
            begun = time.perf_counter()
    return max(longest, time.perf_counter() - begun)


async def event_files(database: Database, metrics: Metrics, directory: Path, tensorboard: Path | None) -> None:
    """From a file of many events into the database."""
    logs = directory / "logs"
    logs.mkdir()
    path = logs / "events.out.tfevents.1"
    path.write_bytes(b"".join(map(record, range(EVENTS))))
    begun = time.perf_counter()
    read_new(str(logs), {}, 1 << 40, 1 << 40)
    print(f"event files, parsed alone: {EVENTS / (time.perf_counter() - begun):,.0f} events/s")
    async with database.write() as session:
        await metrics.open_source(session, Owner("training", "files", "p"), str(logs), 1)
    collector = Collector(database, metrics, Workloads(database, FakeCompute()))
    begun = time.perf_counter()
    while await collector.collect():
        pass
    print(f"event files, into the store, durable: {EVENTS / (time.perf_counter() - begun):,.0f} events/s")
    await collector.close()
    if tensorboard is not None:
        done = subprocess.run([tensorboard, "-c", TENSORBOARD, str(path)], capture_output=True, text=True, check=True)
        print(f"  floor: TensorBoard's loader, parsed alone: {float(done.stdout.split()[-1]):,.0f} events/s")


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


def bare(path: Path, points: Sequence[Point]) -> float:
    """Seconds for one transaction of plain rows."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
    connection.execute("CREATE TABLE IF NOT EXISTS points (name TEXT, step INTEGER, time INTEGER, value REAL)")
    begun = time.perf_counter()
    with connection:
        rows = [(each.name, each.step, each.time, each.value) for each in points]
        connection.executemany("INSERT INTO points VALUES (?, ?, ?, ?)", rows)
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def batch(number: int, series_count: int) -> list[Point]:
    """One write: `BATCH` points, so many a series."""
    each = BATCH // series_count
    return [point for index in range(series_count) for point in curve(f"m{index}", number * each, each)]


def curve(name: str, first_step: int, count: int) -> list[Point]:
    """Points of a noisy curve, with single precision as frameworks write them."""
    steps = range(first_step, first_step + count)
    return [Point(name, step, 1_700_000_000_000_000 + step * 100_003, single(math.sin(step * 0.7))) for step in steps]


def single(value: float) -> float:
    """The nearest number of single precision."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def record(step: int) -> bytes:
    """A record of an event with one plain scalar."""
    value = b"\x0a\x04loss\x15" + struct.pack("<f", math.sin(step))
    summary = b"\x0a" + bytes([len(value)]) + value
    number = bytearray()
    rest = step
    while rest >= 0x80:
        number.append(rest & 0x7F | 0x80)
        rest >>= 7
    head = b"\x09" + struct.pack("<d", 1.7e9 + step) + b"\x10" + bytes([*number, rest])
    content = head + b"\x2a" + bytes([len(summary)]) + summary
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc(length)) + content + struct.pack("<I", masked_crc(content))


def show(label: str, times: Sequence[float]) -> None:
    """Print the median and the slowest of ten."""
    ordered = sorted(times)
    tail = ordered[int(len(ordered) * 0.9)]
    print(f"{label}: p50 {statistics.median(ordered) * 1000:.1f} ms, p90 {tail * 1000:.1f} ms")


if __name__ == "__main__":
    main()
