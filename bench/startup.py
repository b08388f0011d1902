"""How long a second `modelyard up` takes until everything is healthy, and what the idle platform holds in memory.

The floor beside the start is a bare Python that imports FastAPI and SQLAlchemy's asyncio parts, which any server of this kind must. Beside the
time is what the start cost in processor time (the command and the server), which a busy machine changes less. Goals: at most 3 s, at most
350 MB for server and gateway together.

    python bench/startup.py [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from modelyard.testing.ports import free_port

MODELYARD = [sys.executable, "-m", "modelyard"]
FLOOR = "import fastapi, sqlalchemy.ext.asyncio, uvicorn"


def main() -> None:
    """Measure and print."""
    runs = _arguments().runs
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        ports = [str(free_port()), str(free_port())]
        up = [*MODELYARD, "up", "--home", str(home), "--detach", "--http-port", ports[0], "--https-port", ports[1]]
        down = [*MODELYARD, "down", "--home", str(home)]
        try:
            first = _timed(up, environment)
            subprocess.run(down, check=True, env=environment, stdout=subprocess.DEVNULL)
            starts: list[float] = []
            costs: list[float] = []
            floors: list[float] = []
            for _ in range(runs):
                floors.append(_timed([sys.executable, "-c", FLOOR], environment))
                before = _children_seconds()
                starts.append(_timed(up, environment))
                costs.append(_children_seconds() - before + _server_seconds(home))
                subprocess.run(down, check=True, env=environment, stdout=subprocess.DEVNULL)
            _timed(up, environment)
            time.sleep(5)  # let what the start needed be given back
            memory = _memory(home, environment)
        finally:
            subprocess.run(down, check=False, env=environment, stdout=subprocess.DEVNULL)
    start, floor = statistics.median(starts), statistics.median(floors)
    print(f"first up (makes keys, schema)   {first:6.2f} s")
    print(f"second up, p50 of {runs}             {start:6.2f} s   goal 3.00 s: {_verdict(start <= 3)}")
    print(f"  of it processor time, p50     {statistics.median(costs):6.2f} s")
    print(f"floor: python -c '{FLOOR}'   {floor:.2f} s   ratio {start / floor:.1f}")
    total = sum(memory.values())
    parts = ", ".join(f"{role} {size:.0f}" for role, size in memory.items())
    print(f"idle memory                     {total:6.0f} MB  ({parts})   goal 350 MB: {_verdict(total <= 350)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    return parser.parse_args()


def _timed(argv: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(argv, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def _children_seconds() -> float:
    """Processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _server_seconds(home: Path) -> float:
    """Processor time of the server until now."""
    pid = json.loads((home / "run" / "server-0.json").read_text())["pid"]
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory(home: Path, environment: dict[str, str]) -> dict[str, float]:
    """Resident memory of each process of the platform, in MB."""
    argv = [*MODELYARD, "status", "--home", str(home), "--output", "json"]
    answer = subprocess.run(argv, check=True, env=environment, stdout=subprocess.PIPE).stdout
    return {row["role"]: (row["memoryBytes"] or 0) / 1e6 for row in json.loads(answer)}


def _verdict(is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
