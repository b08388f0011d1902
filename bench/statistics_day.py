"""How long a day of an endpoint's statistics takes to read: busy in every minute, on so many stages.

A real platform keeps endpoints of its own; their blocks of calls are written straight into the database, as the collector would in a day. Asked is
what a page draws: the endpoint's points and everybody's totals (`seriesList=ENDPOINT`), then all points of all series. Told are the first answer, and
the median of the others: the platform remembers what it told of hours that are over.

    python bench/statistics_day.py [--stages 1 5 10] [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx
from endpoints import MAKE_ONNX
from platform_home import running_platform

from modelyard.kit.ids import new_id
from modelyard.resources.endpoints.call_blocks import with_counts
from modelyard.resources.endpoints.counting import Counts
from modelyard.sdk.connection import Connection

SPANS = ((10, 60), (60, 120), (3600, 240))
DAY = 86_400


def fill(database: Path, endpoint_id: str, stages: int) -> None:
    """A day of calls of so many stages with a model each."""
    chance, now = random.Random(1), int(time.time())
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        for _ in range(stages):
            stage_id, model_id = new_id(), new_id()
            for span, count in SPANS:
                size, blocks = span * count, dict[int, bytes]()
                for at in range(now - DAY - now % span, now, span):
                    begin = at - at % size
                    blocks[begin] = with_counts(blocks.get(begin, b""), (at - begin) // span, calls(chance))
                connection.executemany(
                    "insert into endpoint_call_blocks (endpoint_model_id, span_seconds, starts_at, endpoint_id, stage_id, content)"
                    " values (?, ?, ?, ?, ?, ?)",
                    [(model_id, span, begin, endpoint_id, stage_id, content) for begin, content in blocks.items()],
                )


def calls(chance: random.Random) -> Counts:
    """A busy span."""
    latencies = {index: chance.randint(1, 500) for index in range(10, 10 + chance.randint(5, 20))}
    count = sum(latencies.values())
    return Counts(count, count, received_bytes=300 * count, sent_bytes=90 * count, active_max=9, latencies=latencies)


def ask(
    connection: Connection, endpoint_id: str, rounds: int, resolution: int, series: str
) -> tuple[float, float, int, int]:
    """Seconds until the first answer is there, and in the median until others are; its bytes, and the endpoint's points."""
    url = f"{connection.api_url}/v1.0/appkeys/{connection.app_key}/endpoints/{endpoint_id}/statistics"
    now = time.time()
    moments = {
        name: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for name, at in (("from", now - DAY), ("to", now))
    }
    params = {**moments, "resolutionSeconds": str(resolution), **({"seriesList": series} if series else {})}
    times: list[float] = []
    with httpx.Client(headers={"x-nhn-authorization": f"Bearer {connection.access_token}"}, timeout=60) as client:
        for _ in range(rounds):
            started_at = time.perf_counter()
            answer = client.get(url, params=params)
            times.append(time.perf_counter() - started_at)
            if answer.status_code == 400:
                return times[0], statistics.median(times), len(answer.content), 0
            answer.raise_for_status()
    return (
        times[0],
        statistics.median(times[1:]),
        len(answer.content),
        len(answer.json()["statistics"]["endpoint"]["pointList"]),
    )


def main(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name, running_platform() as (client, connection):
        place = Path(name) / "model"
        subprocess.run([sys.executable, "-c", MAKE_ONNX, str(place)], check=True)
        client.storage.upload(str(place), "bench/model")
        model = client.models.create("bench", artifact="bench/model", format="ONNX")
        assert connection.ca_file is not None
        database = connection.ca_file.parents[1] / "modelyard.db"
        print(f"{'stages':>7}{'spans':>7}  {'asked':12}{'first ms':>9}{'ms':>8}{'KB':>8}{'points':>8}")
        for stages in options.stages:
            endpoint = client.endpoints.create(f"bench-{stages}", models=model.id, flavor="c2.c1m1")
            fill(database, endpoint.id, stages)
            for resolution in (3600, 60, 10):
                for series in ("ENDPOINT", ""):
                    first, taken, size, points = ask(connection, endpoint.id, options.rounds, resolution, series)
                    row = f"{stages:7}{resolution:7}  {series or 'all':12}{1000 * first:9.1f}{1000 * taken:8.1f}{size // 1000:8}{points:8}"
                    print(row, flush=True)
    print(f"\n{os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="How long a day of statistics takes to read.")
    parser.add_argument("--stages", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args())
