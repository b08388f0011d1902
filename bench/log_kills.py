"""Numbered lines of a training, and `kill -9` of the server while they come: each must be in the log store once, in order.

    python bench/log_kills.py [--lines 1000000] [--kills 3]

The server is killed when a further part of the lines is kept. What is counted is read from the log store's files themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from platform_home import MODELYARD, running_platform

from modelyard.logstore.backends.tantivy.store import TantivyLogs
from modelyard.logstore.port import LogQuery
from modelyard.sdk.client import Client

IMAGE = "Ubuntu 22.04 CPU Python 3.11 Training"
FLAVOR = "c2.c1m1"
PAGE = 1000
PATIENCE_SECONDS = 1200.0


def main() -> None:
    """Run, and say what was found; ends with 1 where a line is missing or there twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=3)
    options = parser.parse_args()
    with running_platform() as (client, connection), tempfile.TemporaryDirectory() as directory:
        home = next(place for place in Path(str(connection.ca_file)).parents if (place / "run").is_dir())
        script = Path(directory) / "train.py"
        script.write_text(f"for number in range({options.lines}):\n    print('line', number, 'of many')\n")
        client.storage.upload(script, "bench/source/train.py")
        begun = time.monotonic()
        training = client.trainings.create(
            "numbered",
            new_experiment="bench",
            image=IMAGE,
            flavor=FLAVOR,
            source="bench/source",
            entry_point="train.py",
            model_upload="bench/output",
            use_log=True,
        )
        for number in range(options.kills):
            _wait_for(client, training.id, options.lines * (number + 1) // (options.kills + 1))
            pid = _server(home)
            os.kill(pid, signal.SIGKILL)
            print(f"killed the server (pid {pid}) after {time.monotonic() - begun:.1f} s", flush=True)
        _wait_for(client, training.id, options.lines)
        seconds = time.monotonic() - begun
        numbers = asyncio.run(_numbers(home, connection.app_key, training.id))
    lost, repeated = options.lines - len(set(numbers)), len(numbers) - len(set(numbers))
    print(
        f"{options.lines:,} lines in {seconds:.1f} s ({options.lines / seconds:,.0f} a second from creation to search)"
    )
    print(
        f"lost {lost:,}, repeated {repeated:,}, in order: {numbers == sorted(numbers)}; load {os.getloadavg()[0]:.1f}"
    )
    raise SystemExit(1 if lost or repeated or numbers != sorted(numbers) else 0)


def _wait_for(client: Client, training_id: str, count: int) -> None:
    """Until so many lines can be searched."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    query = f'trainingId:"{training_id}" AND body:many'
    while client.logs.search(query, limit=1).total_count < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"{count:,} lines were not there in {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.5)


def _server(home: Path) -> int:
    told = subprocess.run(
        [*MODELYARD, "status", "--home", str(home), "--output", "json"], check=True, capture_output=True, text=True
    )
    return next(int(row["pid"]) for row in json.loads(told.stdout) if row["role"] == "server")


async def _numbers(home: Path, app_key: str, training_id: str) -> list[int]:
    """The numbers of all lines, oldest first."""
    found: list[int] = []
    async with TantivyLogs(home / "logstore", is_reader=True) as store:
        cursor: str | None = None
        while True:
            text = f'trainingId:"{training_id}" AND body:many'
            page = await store.search(LogQuery(app_key, text, limit=PAGE, cursor=cursor, is_ascending=True))
            bodies = (re.match(r"line (\d+) of many", str(line["body"])) for line in page.lines)
            found += [int(match[1]) for match in bodies if match]
            cursor = page.cursor
            if cursor is None or not page.lines:
                return found


if __name__ == "__main__":
    main()
