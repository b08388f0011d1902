"""Crashes and full disks, with real processes: nothing acknowledged is lost, nothing comes twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelyard.logstore.backends.tantivy.store import TantivyLogs
from modelyard.logstore.port import LogQuery

SHIPPER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import LogLine

def lines(source, first, count):
    now = datetime.now(UTC)
    return [LogLine(source, n, now, "INFO", "c", "t", "key", f"{source} {n}") for n in range(first, first + count)]

async def ship(logs, source, count):
    last = await logs.last_position(source)
    position = 0 if last is None else last + 1
    while True:
        await logs.append(lines(source, position, count))
        position += count
        print(source, position - 1, flush=True)

async def main():
    settings = LogStoreSettings(gather_seconds=0.01, max_bytes=400_000_000)
    async with TantivyLogs(Path(sys.argv[1]), settings) as logs:
        await asyncio.gather(*(ship(logs, f"s{number}", 3 + 40 * number) for number in range(4)))

asyncio.run(main())
"""

DISK_FULL = """
import asyncio, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from modelyard.logstore.backends.tantivy.errors import LogsNotKept
from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import LogLine, LogQuery

def lines(first, count):
    return [LogLine("s", n, datetime.now(UTC), "INFO", "c", "t", "key", f"line {n}") for n in range(first, first + count)]

async def main():
    async with TantivyLogs(Path(sys.argv[1]), LogStoreSettings(gather_seconds=0)) as logs:
        await logs.append(lines(0, 10))
        # No file may grow beyond this: what a full disk looks like to one process.
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        for _ in range(2):
            try:
                await logs.append(lines(10, 5000))
                raise SystemExit("the append should have failed")
            except LogsNotKept as error:
                print("refused:", error)
        print("meanwhile", (await logs.search(LogQuery("key"))).total_count, await logs.last_position("s"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await logs.append(lines(10, 5000))
        print("afterwards", (await logs.search(LogQuery("key"))).total_count, await logs.last_position("s"))

asyncio.run(main())
"""


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


async def kept_positions(root: Path) -> dict[str, list[int]]:
    """All positions in the store by source, read through the public search."""
    found: dict[str, list[int]] = {}
    async with TantivyLogs(root) as logs:
        cursor = None
        while True:
            page = await logs.search(LogQuery("key", limit=1000, cursor=cursor, is_ascending=True))
            for line in page.lines:
                source, position = line["body"].split()
                found.setdefault(source, []).append(int(position))
            cursor = page.cursor
            if cursor is None:
                return found


def run_until_killed(root: Path, seconds: float) -> dict[str, int]:
    """Run the shipper, kill it that long after its first acknowledgement; what it had acknowledged by source."""
    with subprocess.Popen(
        [sys.executable, "-c", SHIPPER, str(root)], stdout=subprocess.PIPE, text=True, env=environment()
    ) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(seconds)
        os.kill(child.pid, signal.SIGKILL)
        acknowledged: dict[str, int] = {}
        for line in [first, *child.stdout]:
            # The kill may have cut the last line short.
            if line.endswith("\n"):
                source, position = line.split()
                acknowledged[source] = int(position)
    assert child.returncode == -signal.SIGKILL
    return acknowledged


@pytest.mark.slow
def test_kill_9_loses_nothing_and_repeats_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: dict[str, int] = {}
    for _ in range(8):
        acknowledged.update(run_until_killed(tmp_path / "logs", chance.uniform(0.0, 0.5)))
        found = asyncio.run(kept_positions(tmp_path / "logs"))
        assert acknowledged
        for source, position in acknowledged.items():
            assert found[source] == list(range(len(found[source])))
            assert found[source][-1] >= position


@pytest.mark.slow
def test_a_full_disk_is_told_and_passes(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(tmp_path / "logs")],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["refused", "refused"]
    assert lines[2:] == ["meanwhile 10 9", "afterwards 5010 5009"]
