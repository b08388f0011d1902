"""What an instance tries and must not reach: others, the platform, the system."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local import backend
from modelyard.compute.backends.local.package_access import PackageAccess
from modelyard.compute.backends.local.settings import Isolation
from modelyard.compute.port import RUN, Command, Environment, LaunchRefused, Mount, Phase

pytestmark = pytest.mark.slow

PLAIN = Environment("bare Python", f"{sys.version_info.major}.{sys.version_info.minor}", ())
_MUTE = "2>/dev/null"


async def test_the_system_is_read_only_and_the_platform_is_not_there(world: Any, tmp_path: Path) -> None:
    secret = tmp_path / "platform.db"
    secret.write_text("secret")
    script = (
        f"cat {secret} {_MUTE} && echo LEAK database\n"
        f"ls {tmp_path} {_MUTE} && echo LEAK directory\n"
        f"ls /home /work /boot {_MUTE} && echo LEAK host\n"
        f"for d in /usr /usr/bin /lib /etc/ssl /opt/modelyard/lib; do touch $d/x {_MUTE} && echo LEAK write $d; done\n"
        f"cat /etc/shadow {_MUTE} && echo LEAK shadow\n"
        f"grep -v -e ^root: -e ^nobody: /etc/passwd && echo LEAK users\n"
        "echo tried\n"
    )
    _, printed = await world.run(script)
    assert printed == "tried\n"


async def test_instances_do_not_see_each_other(world: Any) -> None:
    other = world.instance("echo private > /workspace/secret; echo $$; sleep 1000", project_id="project-b")
    await world.compute.launch(other)
    await world.until_printed(other.id, "\n")
    (seen,) = await world.compute.observe([other.id])
    directory = world.directory(other)
    code = (
        "import os, ctypes\n"
        f"for path in ({str(directory)!r}, {str(directory / 'workspace' / 'secret')!r}, '/proc/{seen.pid}/root/workspace/secret'):\n"
        "    try:\n        os.listdir(path) if os.path.isdir(path) else open(path).read(); print('LEAK', path)\n    except OSError: pass\n"
        "pids = [int(name) for name in os.listdir('/proc') if name.isdigit()]\n"
        "print('pids', len(pids))\n"
        f"for pid in ({seen.pid}, {os.getpid()}):\n"
        "    try:\n        os.kill(pid, 0); print('LEAK kill', pid)\n    except ProcessLookupError: pass\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"print('LEAK ptrace' if libc.ptrace(16, {seen.pid}, 0, 0) == 0 else 'no ptrace')\n"
        "for name in ('/proc/1/root', '/proc/1/cwd', '/proc/1/fd'):\n"
        "    try:\n        print('ROOT', sorted(os.listdir(name))[:3])\n    except OSError as error: print('denied', name)\n"
    )
    _, printed = await world.run(world.python(code))
    assert "LEAK" not in printed
    assert "pids 2\n" in printed
    assert "no ptrace\n" in printed


async def test_tricks_of_proc_sys_and_namespaces(world: Any) -> None:
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for path, text in (('/proc/sys/kernel/core_pattern', '|/tmp/x'), ('/proc/sysrq-trigger', 'c'), ('/proc/sys/vm/overcommit_memory', '1'),\n"
        "                   ('/proc/1/oom_score_adj', '-1000'), ('/proc/self/oom_score_adj', '-1000'), ('/sys/fs/cgroup/memory/x', '1')):\n"
        "    try:\n        fd = os.open(path, os.O_WRONLY | os.O_CREAT); os.write(fd, text.encode()); print('LEAK', path)\n    except OSError: pass\n"
        "print('LEAK mount' if libc.mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0 else 'no mount')\n"
        "print('LEAK userns' if libc.unshare(0x10000000) == 0 else 'no userns')\n"
        "print('LEAK umount' if libc.umount2(b'/usr', 2) == 0 else 'no umount')\n"
        "print('LEAK chroot' if libc.chroot(b'/workspace') == 0 else 'no chroot')\n"
        "try:\n    os.mknod('/workspace/disk', 0o60600, os.makedev(254, 0)); print('LEAK mknod')\nexcept OSError: pass\n"
        "status = open('/proc/self/status').read()\n"
        "print([line for line in status.splitlines() if line.startswith(('CapEff', 'CapBnd', 'NoNewPrivs'))])\n"
        "print(os.listdir('/dev'))\n"
    )
    _, printed = await world.run(world.python(code))
    assert "LEAK" not in printed, printed
    assert "'CapEff:\\t0000000000000000'" in printed
    assert "'NoNewPrivs:\\t1'" in printed
    assert "vda" not in printed


async def test_setuid_programs_gain_nothing(world: Any) -> None:
    _, printed = await world.run(
        "cp /bin/sh /workspace/sh; chmod 4755 /workspace/sh; /workspace/sh -p -c 'grep ^CapEff /proc/self/status'"
    )
    assert printed == "CapEff:\t0000000000000000\n"


async def test_user_variables_do_not_reach_bubblewrap(world: Any, tmp_path: Path) -> None:
    command = Command(
        ("/bin/sh", "-c", "echo $LD_PRELOAD"),
        {"LD_PRELOAD": "/workspace/evil.so", "LD_DEBUG_OUTPUT": str(tmp_path / "x")},
    )
    seen, printed = await world.run(world.instance(command))
    assert seen.exit.code == 0
    assert "/workspace/evil.so" in printed
    assert not list(tmp_path.glob("x*"))


async def test_secrets_are_not_in_the_process_list(world: Any) -> None:
    instance = world.instance(Command(("/bin/sh", "-c", "echo up; sleep 60"), {"TOKEN": "s3cr3t-t0k3n"}))
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                assert b"s3cr3t-t0k3n" not in (entry / "cmdline").read_bytes()
            except OSError:
                continue


async def test_a_project_shares_its_cache_and_its_directories_and_no_other_does(world: Any, tmp_path: Path) -> None:
    isolation, _ = await world.compute.prepare()
    shared = Mount(str(tmp_path / "nas" / "one"), "/mnt/nas")
    write = "umask; mkdir -p /mnt/nas/d; echo one > /mnt/nas/d/f; echo cached > /var/cache/modelyard/c; id -u"
    _, printed = await world.run(write, mounts=(shared,))
    assert printed == "0002\n0\n"
    _, printed = await world.run(
        "cat /mnt/nas/d/f /var/cache/modelyard/c; echo two >> /mnt/nas/d/f; touch /mnt/nas/d/g && echo wrote",
        mounts=(shared,),
    )
    assert printed == "one\ncached\nwrote\n"
    assert (tmp_path / "nas" / "one" / "d" / "f").read_text() == "one\ntwo\n"
    _, printed = await world.run(f"ls /var/cache/modelyard; ls /mnt/nas {_MUTE}; echo none", project_id="project-b")
    assert printed == "none\n"
    if isolation is Isolation.WORKLOAD_USER:
        first, second = ((tmp_path / "nas" / "one" / "d" / name).stat() for name in "fg")
        assert first.st_uid != second.st_uid
        assert first.st_gid == second.st_gid != os.getgid()
        _, printed = await world.run(
            f"cat /mnt/nas/d/f {_MUTE} || echo refused", mounts=(shared,), project_id="project-b"
        )


async def test_package_sources_of_the_machine_are_seen_and_may_vanish(
    make_world: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "one-1.0-py3-none-any.whl").write_text("x")
    access = PackageAccess({"PIP_FIND_LINKS": str(wheels)}, (str(wheels),))
    monkeypatch.setattr(backend, "find_package_access", lambda: access)
    world = make_world()
    _, printed = await world.run(f"ls $PIP_FIND_LINKS; touch $PIP_FIND_LINKS/x {_MUTE} || echo refused")
    assert printed == "one-1.0-py3-none-any.whl\nrefused\n"
    wheels.rename(tmp_path / "gone")
    seen, _ = await world.run("exit 0")
    assert (seen.exit.code, seen.exit.cause.value) == (0, "EXITED")


async def test_read_only_mounts(world: Any, tmp_path: Path) -> None:
    source = tmp_path / "given"
    source.mkdir()
    (source / "f").write_text("given\n")
    mount = Mount(str(source), "/workspace/input/deep", read_only=True)
    _, printed = await world.run(f"cat input/deep/f; touch input/deep/x {_MUTE} || echo refused", mounts=(mount,))
    assert printed == "given\nrefused\n"


async def test_a_link_that_a_workload_left_does_not_lead_a_mount_elsewhere(world: Any, tmp_path: Path) -> None:
    if (await world.compute.prepare())[0] is not Isolation.WORKLOAD_USER:
        return  # Without users of their own the links of workloads can't be told from the platform's.
    nas = Mount(str(tmp_path / "nas"), "/mnt/nas")
    await world.run("ln -s /etc /mnt/nas/link; ln -s ../../../../../root /mnt/nas/up", mounts=(nas,))
    for name in ("link", "up"):
        trap = Mount(str(tmp_path / "nas" / name), "/mnt/trap")
        seen, printed = await world.run("ls /mnt/trap; echo ran", mounts=(trap,))
        assert seen.exit.cause.value == "LAUNCH_FAILED"
        assert "symbolic link" in seen.exit.message
        assert "ran" not in printed
    trap = Mount(str(tmp_path / "nas" / "link" / "made"), "/mnt/trap")
    await world.run("true", mounts=(trap,))
    assert not Path("/etc/made").exists()


async def test_links_in_the_workspace_are_not_followed_when_the_platform_reads_and_removes(
    world: Any, tmp_path: Path
) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text('{"step": "stolen"}')
    instance = world.instance(
        f"ln -s {precious} /workspace/a; ln -s {precious}/file /run/modelyard/report.json; "
        "mkdir -p /workspace/d/e; chmod 0 /workspace/d; mkfifo /tmp/f; "
        "exec /opt/environment/bin/python -c \"import os\nfor _ in range(2000): os.mkdir('deep' * 30); os.chdir('deep' * 30)\nprint('made')\"",
        environment=PLAIN,
    )
    seen, printed = await world.run(instance)
    assert printed == "made\n"
    assert seen.report == {}
    await world.compute.remove(instance.id)
    assert not world.directory(instance).exists()
    assert list((world.root / "compute" / "trash").iterdir()) == []
    assert (precious / "file").read_text() == '{"step": "stolen"}'


@pytest.mark.parametrize(
    "report",
    [
        "[1]",
        "{",
        '"text"',
        '{"a": NaN}',
        '{"a": "\\ud800"}',
        '{"a": "\\u0000"}',
        "[" * 100_000,
        '{"a": ' + "1" * 5000 + "}",
        "x" * 400_000,
    ],
)
async def test_reports_that_are_not_plain_objects_are_ignored(world: Any, report: str) -> None:
    instance = world.instance(Command(("/bin/sh", "-c", f"cp {RUN}/given {RUN}/report.json"), {}, {"given": report}))
    seen, _ = await world.run(instance)
    assert seen.exit.code == 0
    assert seen.report == {}


async def test_a_report_that_is_a_pipe_does_not_hang(world: Any) -> None:
    instance = world.instance("mkfifo /run/modelyard/report.json; echo up; sleep 60")
    await world.compute.launch(instance)
    await world.until_printed(instance.id, "up")
    (seen,) = await asyncio.wait_for(world.compute.observe([instance.id]), 5)
    assert (seen.phase, seen.report) == (Phase.RUNNING, {})


async def test_unix_sockets_of_the_host_are_out_of_reach(world: Any, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        path = world.root / "compute" / "x"
        await world.compute.prepare()
        listener.bind(str(path))
        code = (
            "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            f"try:\n    s.connect({str(path)!r}); print('LEAK')\nexcept OSError: print('none')"
        )
        _, printed = await world.run(world.python(code))
        assert printed == "none\n"


async def test_workloads_have_users_of_their_own(world: Any) -> None:
    if (await world.compute.prepare())[0] is not Isolation.WORKLOAD_USER:
        return
    users = set()
    for _ in range(2):
        instance = world.instance("echo up; sleep 60")
        await world.compute.launch(instance)
        await world.until_printed(instance.id, "up")
        (seen,) = await world.compute.observe([instance.id])
        users.add(Path(f"/proc/{seen.pid}").stat().st_uid)
    assert len(users) == 2
    assert min(users) >= 0x70000000


async def test_isolation_can_be_demanded(make_world: Any) -> None:
    world = make_world(isolation=Isolation.NONE, needs_isolation=True)
    with pytest.raises(LaunchRefused, match="can't isolate"):
        await world.compute.launch(world.instance("true"))
