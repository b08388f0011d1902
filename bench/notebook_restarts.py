"""Stops and starts a notebook again and again: what is on its data storage stays as it is, whatever kind of file it is.

    python bench/notebook_restarts.py [--times 20]

Prints how long a stop and a start took, and fails at the first start after which the digest of the tree (odd names, modes, times, links, a sparse
file, extended attributes) or of a large file is another. Goal: the same digest after all of them.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from platform_home import running_platform

from modelyard.sdk.client import Client

sys.path.append(str(Path(__file__).parent.parent / "tests" / "journeys"))
_Jupyter: Any = import_module("journey_jupyter").Jupyter
_journey: Any = import_module("journey_notebooks")

LARGE = (
    "import hashlib, os\npath = '/root/easymaker/large'\n"
    "if not os.path.exists(path): open(path, 'wb').write(os.urandom(200_000_000))\n"
    "print(hashlib.sha256(open(path, 'rb').read()).hexdigest())"
)
WAIT_SECONDS = 600.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="how many stops and starts")
    asked = parser.parse_args()
    stops: list[float] = []
    starts: list[float] = []
    with running_platform() as (client, connection):
        door = ("127.0.0.1", urlsplit(connection.api_url).port or 0)
        made = client.notebooks.create(
            "restarts", image=_journey.IMAGE, flavor="m2.c1m2", boot_storage_size=10, data_storage_size=10
        )
        client.notebooks.wait(made.id, timeout_seconds=WAIT_SECONDS)
        jupyter = _opened(client, door, made.id)
        jupyter.run(_journey.TREE)
        first = (jupyter.run(_journey.DIGEST), jupyter.run(LARGE))
        for number in range(asked.times):
            begun = time.monotonic()
            client.notebooks.stop(made.id)
            while client.notebooks.get(made.id).notebook_status_code != "STOPPED":
                time.sleep(0.05)
            stops.append(time.monotonic() - begun)
            begun = time.monotonic()
            client.notebooks.start(made.id)
            client.notebooks.wait(made.id, timeout_seconds=WAIT_SECONDS)
            starts.append(time.monotonic() - begun)
            jupyter = _opened(client, door, made.id)
            found = (jupyter.run(_journey.DIGEST), jupyter.run(LARGE))
            if found != first:
                sys.exit(f"after {number + 1} starts: {found}, at first {first}")
        client.notebooks.delete(made.id, wait=True)
    print(
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; {asked.times} stops and starts, the same digests"
    )
    print(f"stop   p50 {statistics.median(stops):.1f} s, longest {max(stops):.1f} s")
    print(f"start  p50 {statistics.median(starts):.1f} s, longest {max(starts):.1f} s")


def _opened(client: Client, door: tuple[str, int], notebook_id: str) -> Any:
    code = urlsplit(client.notebooks.open(notebook_id).url)
    connection = http.client.HTTPConnection(*door)
    connection.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    cookie = (connection.getresponse().headers["set-cookie"] or "").split(";")[0]
    connection.close()
    return _Jupyter(door, code.netloc, Cookie=cookie)


if __name__ == "__main__":
    main()
