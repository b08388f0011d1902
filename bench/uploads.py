"""Many small files into the object store and out of it with the SDK, beside plain copies: with a sync of each file, as the store does it, and
by `cp`.

Goals for each file: at most 5 ms up, 1.5 ms down. Processor time is that of this process; the server has about as much beside it.

    python bench/uploads.py [--files 10000] [--bytes 4096]
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from platform_home import running_platform

from modelyard.sdk.client import Client

SCRIPT = """
import os
for number in range({count}):
    folder = os.path.join(os.environ["EM_MODEL_DIR"], f"part-{{number % 100}}")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f"{{number}}.bin"), "wb") as file:
        file.write(os.urandom({size}))
"""

_GOAL_MS = 5.0
_DOWN_GOAL_MS = 1.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=4096)
    options = parser.parse_args()
    with running_platform() as (client, _connection), tempfile.TemporaryDirectory() as directory:
        data = Path(directory) / "data"
        for number in range(options.files):
            folder = data / f"part-{number % 100}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.bin").write_bytes(os.urandom(options.bytes))
        copied = _copy(data, Path(directory) / "copy")
        begun = time.perf_counter()
        subprocess.run(["cp", "-r", data, Path(directory) / "cp"], check=True)
        floor = time.perf_counter() - begun

        def measure(what: str, goal: float, move: Callable[[], object]) -> None:
            begun, spent = time.perf_counter(), time.process_time()
            move()
            seconds, own = time.perf_counter() - begun, time.process_time() - spent
            own_ms = own / options.files * 1000
            _print(what, seconds, options.files, f", {own_ms:.2f} ms of it this process (goal {goal:g})")

        for name in ("the first time", "over what is there"):
            measure(f"uploaded {name}", _GOAL_MS, lambda: client.storage.upload(data, "bench/data"))
        back = Path(directory) / "back"
        for name in ("the first time", "over what is there"):
            measure(f"downloaded {name}", _DOWN_GOAL_MS, lambda: client.storage.download("bench/data", back))
        for what, seconds in _moved_by_a_training(client, options.files, options.bytes):
            _print(f"{what} by a training", seconds, options.files)
        _print("copied, each synced", copied, options.files)
        _print("cp -r", floor, options.files)
    print(f"{options.files} files of {options.bytes} bytes; load {os.getloadavg()[0]:.1f}")


def _moved_by_a_training(client: Client, count: int, size: int) -> Sequence[tuple[str, float]]:
    """Seconds that a training's fetching of the files and uploading of as many others took, by its own words."""
    with tempfile.TemporaryDirectory() as source:
        (Path(source) / "train.py").write_text(SCRIPT.format(count=count, size=size))
        client.storage.upload(source, "bench/source")
    training = client.trainings.create(
        "many-files",
        new_experiment="bench",
        image="Ubuntu 22.04 CPU Python Training",
        flavor="c2.c1m1",
        source="bench/source",
        entry_point="train.py",
        datasets={"train": "bench/data"},
        model_upload="bench/output",
    )
    client.trainings.wait(training.id)
    text = "".join(client.trainings.logs(training.id))
    found = re.findall(r"(fetched|uploaded) [\d,]{4,} files, .* in ([\d.]+) s", text)
    assert len(found) == 2, text
    return [(what, float(seconds)) for what, seconds in found]


def _copy(source: Path, target: Path) -> float:
    """Seconds to copy file by file, each on the disk before the next begins."""
    begun = time.perf_counter()
    for file in source.rglob("*.bin"):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("wb") as written:
            written.write(file.read_bytes())
            written.flush()
            os.fsync(written.fileno())
    return time.perf_counter() - begun


def _print(what: str, seconds: float, count: int, more: str = "") -> None:
    print(f"{what:28} {seconds:7.2f} s, {seconds / count * 1000:6.2f} ms each{more}", flush=True)


if __name__ == "__main__":
    main()
