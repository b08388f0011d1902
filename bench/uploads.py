"""Many small files into the object store with the SDK, beside a plain copy with a sync of each file.

Goal: at most 5 ms for each file. Processor time is that of this process; the server has about as much beside it.

    python bench/uploads.py [--files 10000] [--bytes 4096]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from platform_home import running_platform

_GOAL_MS = 5.0


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
        for name in ("the first time", "over what is there"):
            begun, spent = time.perf_counter(), time.process_time()
            client.storage.upload(data, "bench/data")
            seconds, own = time.perf_counter() - begun, time.process_time() - spent
            _print(
                f"uploaded {name}",
                seconds,
                options.files,
                f", {own / options.files * 1000:.2f} ms of it this process (goal {_GOAL_MS:g})",
            )
        begun = time.perf_counter()
        client.storage.download("bench/data", Path(directory) / "back")
        _print("downloaded", time.perf_counter() - begun, options.files)
        _print("copied, each synced", copied, options.files)
    print(f"{options.files} files of {options.bytes} bytes; load {os.getloadavg()[0]:.1f}")


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
