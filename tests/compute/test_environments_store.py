"""The store: what is on disk, read without building."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from modelyard.compute.backends.local.environments import (
    EnvironmentFacts,
    EnvironmentStore,
    environment_lock,
    open_to_readers,
    read_spec,
    spec_json,
)
from modelyard.compute.backends.local.scripts import make_scripts_relocatable
from modelyard.compute.port import Environment

IMAGE = Environment("Image", "3.11", ("six==1.16.0",))
FACTS = EnvironmentFacts(
    digest=IMAGE.digest,
    name="Image",
    python="3.11",
    requirements=IMAGE.requirements,
    core_type="CPU",
    python_version="3.11.7",
    executable="/usr/bin/python3.11",
    base_prefix="/usr",
    library_directories=(),
    site_packages="lib/python3.11/site-packages",
    packages=("six==1.16.0", "pip==26.3"),
    installer="uv",
    size_bytes=1234,
    built_at="2026-01-01T00:00:00+00:00",
    build_seconds=1.5,
)


def place(root: Path, facts: EnvironmentFacts) -> Path:
    path = root / facts.digest
    (path / "bin").mkdir(parents=True)
    (path / "bin" / "python").symlink_to("/bin/sh")
    (path / "environment.json").write_text(facts.to_json())
    return path


def test_an_empty_store(tmp_path: Path) -> None:
    store = EnvironmentStore(tmp_path / "not-there")
    assert store.list_built() == ()
    assert not store.is_built(IMAGE)
    assert store.size_bytes(IMAGE) == store.size_bytes() == 0
    assert store.path(IMAGE) == tmp_path / "not-there" / IMAGE.digest
    assert store.python(IMAGE) == store.path(IMAGE) / "bin" / "python"


def test_built_ones_are_listed_newest_first(tmp_path: Path) -> None:
    place(tmp_path, FACTS)
    place(tmp_path, replace(FACTS, digest="0" * 32, built_at="2026-02-01T00:00:00+00:00", size_bytes=1))
    (tmp_path / ".building-x").mkdir()
    (tmp_path / "half").mkdir()
    store = EnvironmentStore(tmp_path)
    assert [facts.digest for facts in store.list_built()] == ["0" * 32, IMAGE.digest]
    assert store.facts(IMAGE) == FACTS
    assert (store.size_bytes(IMAGE), store.size_bytes()) == (1234, 1235)


def test_without_its_marker_or_its_interpreter_it_is_not_built(tmp_path: Path) -> None:
    path = place(tmp_path, FACTS)
    store = EnvironmentStore(tmp_path)
    assert store.is_built(IMAGE)
    (path / "bin" / "python").unlink()
    (path / "bin" / "python").symlink_to("/no/such/python")
    assert not store.is_built(IMAGE)
    (path / "bin" / "python").unlink()
    (path / "bin" / "python").symlink_to("/bin/sh")
    (path / "environment.json").unlink()
    assert not store.is_built(IMAGE)


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json", '{"digest": "x"}'])
def test_a_broken_marker_breaks_nothing(tmp_path: Path, content: str) -> None:
    path = place(tmp_path, FACTS)
    (path / "environment.json").write_text(content)
    assert EnvironmentStore(tmp_path).list_built() == ()


def test_removing(tmp_path: Path) -> None:
    path = place(tmp_path, FACTS)
    store = EnvironmentStore(tmp_path)
    assert store.remove(IMAGE)
    assert not path.exists()
    assert not store.remove(IMAGE)
    assert [entry.name for entry in tmp_path.iterdir()] == [".locks"]


def test_removing_waits_for_a_builder(tmp_path: Path) -> None:
    place(tmp_path, FACTS)
    store = EnvironmentStore(tmp_path)
    with environment_lock(tmp_path, IMAGE.digest):
        remover = threading.Thread(target=store.remove, args=(IMAGE,))
        remover.start()
        remover.join(0.5)
        assert remover.is_alive()
        assert store.is_built(IMAGE)
    remover.join(10)
    assert not store.is_built(IMAGE)


def test_the_specification_survives_the_file() -> None:
    image = Environment("A", ">=3.9", ("a==1", "b==2 ; python_version < '3.12'"), "GPU")
    assert read_spec(spec_json(image)) == image
    assert read_spec(json.dumps(asdict(image))) == image


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("[]", "JSON object"),
        ("{", "Expecting"),
        ('{"name": "", "python": "3.11", "requirements": []}', "name"),
        ('{"name": "a", "requirements": []}', "python"),
        ('{"name": "a", "python": "3.11"}', "requirements"),
        ('{"name": "a", "python": "3.11", "requirements": [1]}', "requirements"),
        ('{"name": "a", "python": "3.11", "requirements": [], "core_type": "TPU"}', "core_type"),
    ],
)
def test_a_bad_specification_names_the_field(spec: str, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        read_spec(spec)


def test_open_to_readers_sets_modes_and_counts_each_inode_once(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "module.py").write_bytes(b"x" * 8192)
    (closed / "module.py").chmod(0o600)
    os.link(closed / "module.py", closed / "twin.py")
    (closed / "tool").write_text("#!/bin/sh\n")
    (closed / "tool").chmod(0o700)
    (closed / "link").symlink_to("/etc/shadow")
    size = open_to_readers(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (closed, closed / "module.py", closed / "tool")}
    assert modes == {"closed": 0o755, "module.py": 0o644, "tool": 0o755}
    assert 8192 <= size < 3 * 8192 + 4096


def test_only_scripts_with_the_old_path_are_rewritten(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    own, long, foreign, binary = (tmp_path / "bin" / name for name in ("own", "long", "foreign", "binary"))
    long.write_text(f"#!/bin/sh\n'''exec' {tmp_path}/bin/python \"$0\" \"$@\"\n' '''\nprint('hi')\n")
    own.write_text(f"#!{tmp_path}/bin/python3\nprint('hi')\n")
    foreign.write_text("#!/usr/bin/env python\nprint('hi')\n")
    binary.write_bytes(b"\x7fELF\0\n")
    (tmp_path / "bin" / "python").symlink_to("/bin/sh")
    assert make_scripts_relocatable(tmp_path) == 2
    assert long.read_text() == own.read_text()
    assert own.read_text().startswith("#!/bin/sh\n")
    assert own.read_text().endswith("print('hi')\n")
    assert foreign.read_text() == "#!/usr/bin/env python\nprint('hi')\n"
    assert binary.read_bytes() == b"\x7fELF\0\n"
