"""Data into a run: 1,000 small files and one large one, fetched the first time and from the project's cache, beside `cp -r`.

What is measured is the run's own step `fetching` (listing, transfer, checks, writing), read from its log; `cp -r` copies the same files on the
same disk. The page cache is warm in all three.

    python bench/data.py [--files 1000] [--large-mib 1024] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from platform_home import running_platform

from modelyard.sdk.client import Client

IMAGE = "Ubuntu 22.04 CPU Python Training"
FLAVOR = "c2.c1m1"
SCRIPT = "import time; time.sleep(3)"
FETCHED = re.compile(r"fetched ([\d,]+) files?, .* in ([\d.]+) s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with running_platform() as (client, _connection), tempfile.TemporaryDirectory() as directory:
        data = _make_data(Path(directory) / "data", options.files, options.large_mib)
        (Path(directory) / "source").mkdir()
        (Path(directory) / "source/train.py").write_text(SCRIPT)
        client.storage.upload(Path(directory) / "source", "bench/source")
        begun = time.perf_counter()
        client.storage.upload(data, "bench/data")
        print(f"uploaded in {time.perf_counter() - begun:.1f} s", flush=True)
        first = [_fetch(client, "first")]
        cached = [_fetch(client, f"cached-{number}") for number in range(options.rounds)]
        copied = [_copy(data, Path(directory) / "copy") for _ in range(options.rounds)]
    size = options.large_mib + options.files * 4 / 1024
    print(f"{options.files} files of 4 KiB and one of {options.large_mib} MiB; load {os.getloadavg()[0]:.1f}")
    for name, seconds in (("first run", first), ("cached run", cached), ("cp -r", copied)):
        middle = statistics.median(seconds)
        print(
            f"{name:12} {middle:6.2f} s   {size / max(middle, 0.001):6.0f} MiB/s   {middle / statistics.median(copied):.1f} × cp -r"
        )


def _make_data(place: Path, count: int, large_mib: int) -> Path:
    place.mkdir()
    for number in range(count):
        folder = place / f"part-{number % 10}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}.bin").write_bytes(os.urandom(4096))
    with (place / "large.bin").open("wb") as file:
        for _ in range(large_mib):
            file.write(os.urandom(1 << 20))
    return place


def _fetch(client: Client, name: str) -> float:
    """Seconds that a training's fetching took, by its own words."""
    training = client.trainings.create(
        name,
        new_experiment="bench",
        image=IMAGE,
        flavor=FLAVOR,
        source="bench/source",
        entry_point="train.py",
        datasets={"train": "bench/data"},
        model_upload="bench/output",
    )
    client.trainings.wait(training.id)
    text = "".join(client.trainings.logs(training.id))
    found = FETCHED.search(text)
    assert found is not None, text
    return float(found[2])


def _copy(source: Path, target: Path) -> float:
    shutil.rmtree(target, ignore_errors=True)
    begun = time.perf_counter()
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
