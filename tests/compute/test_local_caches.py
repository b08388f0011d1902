"""What is kept may go when there is too much of it; what something uses never does."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.caches import Bounds, CacheKind, Caches
from modelyard.compute.backends.local.environments import FACTS_FILE, EnvironmentStore
from modelyard.compute.port import RUN, Environment, Phase

DAY = 86400.0


def environment(store: EnvironmentStore, name: str, age_days: float) -> Environment:
    """A built environment of 1000 bytes that was last used so long ago."""
    made = Environment(name, "3.11", (name,))
    place = store.path(made)
    place.mkdir(parents=True)
    (place / "bin").mkdir()
    (place / "bin/python").symlink_to("/bin/true")
    facts = {
        "digest": made.digest,
        "name": name,
        "python": "3.11",
        "requirements": [name],
        "core_type": "CPU",
        "python_version": "3.11.7",
        "executable": "/bin/true",
        "base_prefix": "/usr",
        "library_directories": [],
        "site_packages": "lib",
        "packages": [],
        "installer": "uv",
        "size_bytes": 1000,
        "built_at": "2026-01-01T00:00:00+00:00",
        "build_seconds": 1.0,
    }
    (place / FACTS_FILE).write_text(json.dumps(facts))
    store.note_use(made)
    used_at = time.time() - age_days * DAY
    os.utime(store.root / ".used" / made.digest, (used_at, used_at))
    return made


def layer(root: Path, letter: str, age_days: float) -> Path:
    place = root / "projects/p/cache/layers" / (letter * 64)
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"x" * 10_000)
    used_at = time.time() - age_days * DAY
    os.utime(place, (used_at, used_at))
    return place


@pytest.fixture
def store(tmp_path: Path) -> EnvironmentStore:
    return EnvironmentStore(tmp_path / "environments")


@pytest.fixture
def caches(tmp_path: Path, store: EnvironmentStore) -> Caches:
    return Caches(tmp_path / "compute", store)


def test_the_longest_unused_goes_first_and_what_is_needed_stays(caches: Caches, store: EnvironmentStore) -> None:
    needed, old, young, recent = (
        environment(store, name, age) for name, age in (("needed", 90), ("old", 60), ("young", 2), ("recent", 0))
    )
    assert caches.trim(Bounds(environments_bytes=4000), {needed.digest}) == []
    gone = caches.trim(Bounds(environments_bytes=3500), {needed.digest})
    assert [item.title for item in gone] == ["old"]
    assert caches.trim(Bounds(environments_bytes=0), {needed.digest})[0].title == "young"
    assert [store.is_built(each) for each in (needed, old, young, recent)] == [True, False, False, True]
    (held,) = [item for item in caches.list({needed.digest}) if item.held_by]
    assert (held.title, held.held_by) == ("needed", "in use")


def test_a_store_that_is_shared_is_left_alone(caches: Caches, store: EnvironmentStore, tmp_path: Path) -> None:
    environment(store, "old", 60)
    (tmp_path / "link").symlink_to(store.root)
    shared = Caches(tmp_path / "compute", EnvironmentStore(tmp_path / "link"))
    assert shared.trim(Bounds(environments_bytes=0)) == []
    assert shared.prune(list(CacheKind), 0.0) == []
    assert shared.list()[0].held_by == "it belongs to a store that others use too"
    assert [item.title for item in caches.prune(list(CacheKind), 0.0)] == ["old"]


def test_old_layers_and_data_go(caches: Caches, tmp_path: Path) -> None:
    old, young = layer(tmp_path / "compute", "a", 30), layer(tmp_path / "compute", "b", 3)
    entry = tmp_path / "compute/projects/p/data/entries/ab" / ("ab" * 16 + ".5")
    entry.parent.mkdir(parents=True)
    entry.write_bytes(b"12345")
    os.utime(entry, (1, 1))
    (tmp_path / "compute/projects/p/cache/layers" / ("a" * 64 + ".lock")).touch()
    would = caches.prune(list(CacheKind), 7 * DAY, is_dry=True)
    assert {str(item.kind) for item in would} == {"layers", "data"}
    assert old.exists()
    gone = caches.prune(list(CacheKind), 7 * DAY)
    assert [item.name for item in gone] == [item.name for item in would]
    assert (old.exists(), young.exists(), entry.exists()) == (False, True, False)


def test_a_link_in_the_place_of_layers_is_not_followed(caches: Caches, tmp_path: Path) -> None:
    victim = tmp_path / "victim" / ("c" * 64)
    victim.mkdir(parents=True)
    (tmp_path / "compute/projects/p/cache").mkdir(parents=True)
    (tmp_path / "compute/projects/p/cache/layers").symlink_to(tmp_path / "victim")
    assert caches.list() == []
    assert caches.prune(list(CacheKind), 0.0) == []
    assert victim.exists()


@pytest.mark.slow
async def test_what_a_running_instance_uses_is_held(world: Any) -> None:
    name = "d" * 64
    place = layer(world.root / "compute", "d", 30)
    (world.root / "compute/projects/p").rename(world.root / "compute/projects/project-a")
    place = world.root / "compute/projects/project-a/cache/layers" / name
    code = f"""
import socket, time
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect({RUN!r} + "/data.sock")
door.send(b"layer {name}")
door.send(b"finish"); door.recv(64)
print("told", flush=True)
time.sleep(60)
"""
    instance = world.python(code)
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "told")
    caches = Caches(world.root / "compute", world.compute._environments)
    held = {item.title: item.held_by for item in caches.list() if item.held_by}
    assert held["requirements"] == "in use"
    assert len(held) == 2  # and its environment
    assert caches.prune([CacheKind.LAYERS], 0.0) == []
    await world.compute.stop(instance.id)
    await world.until(instance.id, Phase.EXITED)
    await asyncio.sleep(0)
    assert [item.name for item in caches.prune([CacheKind.LAYERS], 0.0)] == [name]
    assert not place.exists()
