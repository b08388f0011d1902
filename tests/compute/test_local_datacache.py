"""The data cache from inside real sandboxes: shared by a project, read-only, and only what it says."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.datacache import list_entries
from modelyard.compute.port import DATA, RUN

pytestmark = pytest.mark.slow

CONTENT = b"some data" * 100_000
MD5 = hashlib.md5(CONTENT).hexdigest()

OFFER = f"""
import hashlib, sys
from modelyard.runner.datacache import DataCache
content = b"some data" * 100_000
open("/workspace/file", "wb").write(content)
cache = DataCache({DATA!r}, {RUN!r} + "/data.sock")
cache.offer("/workspace/file", hashlib.md5(content).hexdigest(), len(content))
cache.finish(30)
"""

USE = f"""
import os
from modelyard.runner.datacache import DataCache
from modelyard.runner.stop import Stop
cache = DataCache({DATA!r}, "")
print("found", cache.bring("{MD5}", {len(CONTENT)}, 0.0, "/workspace/copy", Stop(), lambda count: None))
print("trusted", cache._is_trusted)
for path, flags in (("{MD5[:2]}/{MD5}.{len(CONTENT)}", os.O_WRONLY), ("new", os.O_WRONLY | os.O_CREAT)):
    try:
        os.open({DATA!r} + "/" + path, flags)
        print("written")
    except OSError as error:
        print(error.strerror)
os.open("/workspace/copy", os.O_RDWR)
"""


def entries(root: Path, project: str) -> list[str]:
    return [Path(each["path"]).name for each in list_entries(str(root / "compute/projects" / project / "data"))]


async def until(check: Any) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_what_one_run_offers_the_next_one_has(world: Any) -> None:
    seen, printed = await world.run(world.python(OFFER))
    assert seen.exit.code == 0, printed
    await until(lambda: entries(world.root, "project-a") == [f"{MD5}.{len(CONTENT)}"])
    (entry,) = list_entries(str(world.root / "compute/projects/project-a/data"))
    assert Path(entry["path"]).read_bytes() == CONTENT
    assert Path(entry["path"]).stat().st_uid == os.getuid()
    seen, printed = await world.run(world.python(USE))
    assert printed.splitlines()[:2] == ["found True", "trusted True"]
    assert "written" not in printed
    assert seen.exit.code == 0, printed
    _, printed = await world.run(world.python(USE, project_id="project-b"))
    assert "found False" in printed


async def test_a_keeper_ends_with_its_supervisor(world: Any) -> None:
    instance = world.python(OFFER + "print('offered', flush=True)\nimport time; time.sleep(60)")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "offered")
    supervisor = next(each.supervisor_pid for each in await world.compute.list_instances())
    keepers = [pid for pid in children(supervisor) if name(pid) == "my-keeper"]
    assert len(keepers) == 1
    os.kill(supervisor, 9)
    await until(lambda: name(keepers[0]) == "")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
