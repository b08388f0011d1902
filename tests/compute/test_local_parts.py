"""The small parts of the local backend, each by itself."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from modelyard.compute.backends.local import processes, records, removal, sandbox, trusted_paths, verdict
from modelyard.compute.backends.local.identities import Identities
from modelyard.compute.backends.local.package_access import access_of
from modelyard.compute.backends.local.runtime import install
from modelyard.compute.backends.local.usage import disk_bytes
from modelyard.kit.errors import RetryLater


def test_identities_stay_and_come_back(tmp_path: Path) -> None:
    identities = Identities(tmp_path / "users", 1000, 3)
    numbers = {name: identities.claim(name) for name in ("a", "b", "c")}
    assert sorted(numbers.values()) == [1000, 1001, 1002]
    assert Identities(tmp_path / "users", 1000, 3).claim("b") == numbers["b"]
    with pytest.raises(RetryLater):
        identities.claim("d")
    identities.release("b")
    identities.release("b")
    assert identities.claim("d") == numbers["b"]


def test_removal_of_what_resists(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    victim = tmp_path / "victim"
    deep = victim
    for _ in range(60):
        deep = deep / ("d" * 60)
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (victim / "link").symlink_to(outside)
    (victim / "dangling").symlink_to("/nowhere")
    os.mkfifo(victim / "pipe")
    (victim / "locked" / "inner").mkdir(parents=True)
    (victim / "locked").chmod(0)
    removal.put_aside(victim, tmp_path / "trash")
    removal.put_aside(victim, tmp_path / "trash")
    assert not victim.exists()
    removal.empty(tmp_path / "trash")
    assert list((tmp_path / "trash").iterdir()) == []
    assert (outside / "kept").read_text() == "kept"


def test_records_are_json_whatever_the_text(tmp_path: Path) -> None:
    text = 'quote " backslash \\ line \n Äpfel 한국어 😀 \x7f \0'
    records.write_record(
        str(tmp_path / "r.json"), {"text": text, "count": 3, "part": 1.5, "none": None}, is_durable=True
    )
    assert json.loads((tmp_path / "r.json").read_text()) == {"text": text, "count": 3, "part": 1.5, "none": None}
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_trusted_paths_make_and_share(tmp_path: Path) -> None:
    group = 54321 if os.geteuid() == 0 else None
    trusted_paths.make_shared(str(tmp_path / "a" / "b"), group)
    status = (tmp_path / "a" / "b").stat()
    if group is not None:
        assert (status.st_gid, status.st_mode & 0o7777) == (group, 0o2770)
    (tmp_path / "own").symlink_to("a/../a/b")
    descriptor = trusted_paths.open_path(str(tmp_path / "own"))
    assert Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path / "a" / "b"
    os.close(descriptor)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        trusted_paths.open_path(str(tmp_path / "loop"))
    with pytest.raises(FileNotFoundError):
        trusted_paths.open_path(str(tmp_path / "none"))
    if group is not None:
        (tmp_path / "foreign").symlink_to("/etc")
        os.lchown(tmp_path / "foreign", 1234, 1234)
        for path in ("foreign", "foreign/ssl"):
            with pytest.raises(PermissionError):
                trusted_paths.open_path(str(tmp_path / path))


@pytest.mark.parametrize(
    ("status_text", "wait_status", "is_sandboxed", "cause", "code", "signal"),
    [
        ('{ "child-pid": 7, "x": 1 }\n{ "exit-code": 0 }\n', 0, True, "EXITED", 0, None),
        ('{ "child-pid": 7 }\n{ "exit-code": 3 }\n', 3 << 8, True, "EXITED", 3, None),
        ('{ "child-pid": 7 }\n{ "exit-code": 139 }\n', 139 << 8, True, "SIGNAL", None, 11),
        ('{ "child-pid": 7 }\n{ "exit-code": 255 }\n', 255 << 8, True, "EXITED", 255, None),
        ('{ "child-pid": 7 }\n', 1 << 8, True, "LAUNCH_FAILED", None, None),
        ('{ "child-pid": 7 }\n', 9, True, "SIGNAL", None, 9),
        ("", 127 << 8, True, "LAUNCH_FAILED", None, None),
        ("pid 7\nexit 768\n", 0, False, "EXITED", 3, None),
        ("pid 7\nexit 6\n", 0, False, "SIGNAL", None, 6),
        ("pid 7\n", 0, False, "SIGNAL", None, 9),
    ],
)
def test_verdicts(
    status_text: str, wait_status: int, is_sandboxed: bool, cause: str, code: int | None, signal: int | None
) -> None:
    ending = verdict.Ending()
    ending.conclude(wait_status, status_text, is_sandboxed, 1 << 30)
    assert (ending.cause, ending.code, ending.signal) == (cause, code, signal)
    assert ending.message.endswith(".")


def test_a_memory_kill_that_the_program_survived_is_no_failure() -> None:
    ending = verdict.Ending()
    ending.out_of_memory_count = 1
    ending.conclude(0, '{ "exit-code": 0 }', True, 1 << 30)
    assert (ending.cause, ending.message) == ("EXITED", "Ended normally.")


def test_first_pid_waits_for_the_whole_line() -> None:
    assert verdict.first_pid('{ "child-pid": 12') is None
    assert verdict.first_pid('{ "child-pid": 123, "mnt"') == 123
    assert verdict.first_pid("pid 12") is None
    assert verdict.first_pid("pid 123\n") == 123


def test_sizes_in_words() -> None:
    assert [verdict.size(value) for value in (5, 1536, 64 << 20, 3 << 40)] == ["5 bytes", "1.5 KiB", "64 MiB", "3 TiB"]


def test_processes_are_named_by_more_than_a_pid() -> None:
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None
    assert processes.is_alive(os.getpid(), ticks, processes.boot_id())
    assert not processes.is_alive(os.getpid(), ticks + 1, processes.boot_id())
    assert not processes.is_alive(os.getpid(), ticks, "another boot")
    assert processes.start_ticks(2**22 + 1) is None


def test_disk_use_counts_links_once_and_follows_none(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "file").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "d" / "file", tmp_path / "again")
    (tmp_path / "away").symlink_to("/usr")
    assert 100_000 <= disk_bytes(str(tmp_path)) < 150_000


def test_package_configuration_goes_inside(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    simple = tmp_path / "index" / "simple"
    wheels.mkdir()
    simple.mkdir(parents=True)
    configuration = {
        "find-links": f"{wheels}\n/not/there",
        "extra-index-url": f"file://{simple} https://user:pw@packages.example/simple",
        "target": "/somewhere",
        "require-virtualenv": "1",
    }
    environment = {
        "HTTPS_PROXY": "http://proxy:3128",
        "no_proxy": "localhost",
        "HOME": "/x",
        "UV_CACHE_DIR": "/y",
        "SECRET": "z",
    }
    access = access_of(configuration, environment)
    assert access.variables["PIP_FIND_LINKS"] == f"{wheels} /not/there"
    assert access.variables["PIP_EXTRA_INDEX_URL"].startswith(f"file://{simple} ")
    assert access.variables["HTTPS_PROXY"] == "http://proxy:3128"
    assert access.variables["no_proxy"] == "localhost"
    assert not {"HOME", "SECRET", "UV_CACHE_DIR", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV"} & set(access.variables)
    assert set(access.paths) == {str(wheels), str(simple.parent)}


def test_binds_are_staged_only_where_others_can_not_reach_them() -> None:
    binds = [
        sandbox.Bind("/dev/nvidia0", "/dev/nvidia0", is_writable=True, is_device=True, is_system=True),
        sandbox.Bind("/srv/wheels", "/srv/wheels", is_optional=True),
        sandbox.Bind("/srv/nas", "/mnt/nas", is_writable=True, is_shared=True),
    ]
    arguments, staged = sandbox.bind_arguments(binds, "/mnt")
    assert staged == [("/srv/wheels", "optional"), ("/srv/nas", "shared")]
    assert arguments == [
        *("--dev-bind", "/dev/nvidia0", "/dev/nvidia0"),
        *("--ro-bind-try", "/mnt/0", "/srv/wheels"),
        *("--bind", "/mnt/1", "/mnt/nas"),
    ]
    arguments, staged = sandbox.bind_arguments(binds, None)
    assert staged == []
    assert arguments[3:6] == ["--ro-bind-try", "/srv/wheels", "/srv/wheels"]


def test_interpreters_are_shown_where_they_lie(tmp_path: Path) -> None:
    prefix = tmp_path / "versions" / "3.11.7"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "python3.11").write_text("")
    (prefix / "bin" / "python3").symlink_to("python3.11")
    (tmp_path / "alias" / "bin").mkdir(parents=True)
    (tmp_path / "alias" / "bin" / "python3").symlink_to(prefix / "bin" / "python3")
    environment = tmp_path / "environment"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to("python3")
    (environment / "bin" / "python3").symlink_to(tmp_path / "alias" / "bin" / "python3")
    binds = sandbox.interpreter_binds(environment / "bin" / "python", ("/usr",))
    assert {bind.target for bind in binds} == {str(prefix), str(tmp_path / "alias")}
    assert all(bind.source == bind.target and not bind.is_writable for bind in binds)


def test_the_runtime_is_copied_once_and_compiled(tmp_path: Path) -> None:
    first, second = install(tmp_path), install(tmp_path)
    assert first == second
    assert (first.package_root / "modelyard" / "runner" / "__init__.py").exists()
    assert not (first.package_root / "modelyard" / "compute").exists()
    first.compile_for(Path(sys.executable))
    assert list((first.package_root / "modelyard" / "runner" / "__pycache__").glob("__init__.*.pyc"))
    assert len(list(tmp_path.iterdir())) == 1
