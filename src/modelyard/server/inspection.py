"""Whether this machine is fit to run the platform: `modelyard doctor`. Reads only; works without a running platform."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from modelyard.compute.backends.local.buildable import check_buildable
from modelyard.compute.backends.local.limits import find_hierarchies
from modelyard.compute.backends.local.settings import Isolation
from modelyard.resources.images.catalog import load_catalog, to_environment
from modelyard.server.home import Home
from modelyard.server.local_compute import make_compute
from modelyard.server.settings import Settings

_MIN_DISK_BYTES = 10 * 2**30
_MIN_MEMORY_BYTES = 4 * 2**30
_MAX_CLOCK_STEP_SECONDS = 5.0
_EARLIEST_PLAUSIBLE_TIME = 1_760_000_000  # October 2025: an older clock makes every certificate invalid


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, and what to do where it is not good."""

    check: str
    level: Literal["ok", "warning", "problem"]
    message: str
    advice: str | None = None


def examine(home: Home, settings: Settings, *, is_running: bool) -> list[Finding]:
    """Check ports, disk, rights, isolation, limits, memory, clock and interpreters."""
    checks: Sequence[Callable[[], Sequence[Finding]]] = (
        lambda: _home(home),
        lambda: _ports(settings, is_running=is_running),
        lambda: _disk(home),
        _memory,
        _clock,
        lambda: _isolation(home, settings),
        lambda: _images(home),
    )
    findings: list[Finding] = []
    for check in checks:
        findings.extend(check())
    return findings


def _home(home: Home) -> list[Finding]:
    try:
        home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home.root):
            pass
    except OSError as error:
        return [
            Finding(
                "home", "problem", f"{home.root} can't be written ({error.strerror})", "Choose another one with --home."
            )
        ]
    mode = home.root.stat().st_mode & 0o077
    if mode:
        return [Finding("home", "warning", f"others may look into {home.root}", f"chmod 700 {home.root}")]
    return [Finding("home", "ok", f"{home.root} can be written")]


def _ports(settings: Settings, *, is_running: bool) -> list[Finding]:
    findings: list[Finding] = []
    for name, port in (("HTTP port", settings.http_port), ("HTTPS port", settings.https_port)):
        if is_running:
            findings.append(Finding(name, "ok", f"{port} is the platform's"))
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, port))
            except OSError as error:
                option = "--http-port" if name.startswith("HTTP ") else "--https-port"
                advice = f"End what holds it (`ss -ltnp`), or choose another one with {option}."
                findings.append(Finding(name, "problem", f"{settings.host}:{port}: {error.strerror}", advice))
                continue
        findings.append(Finding(name, "ok", f"{settings.host}:{port} is free"))
    return findings


def _disk(home: Home) -> list[Finding]:
    free = shutil.disk_usage(home.root).free
    text = f"{free / 2**30:.0f} GiB are free at {home.root}"
    if free < _MIN_DISK_BYTES:
        return [
            Finding(
                "disk", "warning", text, "The built-in images take about 5 GiB; free some space or choose another home."
            )
        ]
    return [Finding("disk", "ok", text)]


def _memory() -> list[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    text = f"{total / 2**30:.1f} GiB of memory, {len(os.sched_getaffinity(0))} cores"
    if total < _MIN_MEMORY_BYTES:
        return [Finding("memory", "warning", text, "A TensorFlow training wants 2 GiB and more.")]
    return [Finding("memory", "ok", text)]


def _clock() -> list[Finding]:
    if time.time() < _EARLIEST_PLAUSIBLE_TIME:
        return [
            Finding(
                "clock",
                "problem",
                "the clock is wrong",
                "Set it (`timedatectl set-ntp true`): certificates depend on it.",
            )
        ]
    before = time.time() - time.monotonic()
    time.sleep(0.01)
    step = abs(time.time() - time.monotonic() - before)
    if step > _MAX_CLOCK_STEP_SECONDS:
        return [Finding("clock", "warning", "the clock jumps", "Let one service alone set it.")]
    return [Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))]


def _isolation(home: Home, settings: Settings) -> list[Finding]:
    compute, _ = make_compute(home, settings)
    try:
        isolation, notes = asyncio.run(compute.prepare())
    except OSError as error:
        return [Finding("isolation", "problem", f"can't be tried: {error}")]
    finally:
        compute.close()
    words = {
        Isolation.WORKLOAD_USER: "bubblewrap, with a user of its own for each workload",
        Isolation.NAMESPACES: "bubblewrap",
        Isolation.NONE: "none: workloads run as plain processes of this user",
    }
    level: Literal["ok", "warning"] = "warning" if isolation is Isolation.NONE else "ok"
    advice = "Allow unprivileged user namespaces (sysctl), or run the platform as root." if level != "ok" else None
    if notes:
        limits = [
            Finding("limits", "warning", note, "Run as root, or delegate control groups to this user.")
            for note in notes
        ]
    else:
        version = "2" if not find_hierarchies().v1.get("memory") else "1"
        limits = [Finding("limits", "ok", f"control groups, version {version}: memory, cores, processes")]
    return [Finding("isolation", level, words[isolation], advice), *limits]


def _images(home: Home) -> list[Finding]:
    images = load_catalog(home.images_file)
    environments = {to_environment(image).digest: to_environment(image) for image in images}
    purposes = {to_environment(image).digest: " and ".join(map(str.lower, image.groups)) for image in images}
    return [
        Finding(
            "image",
            "ok" if each.can_build else "warning",
            f"{each.environment.name}, {purposes[each.environment.digest]}: {each.message}",
        )
        for each in check_buildable(environments.values(), home.environments)
    ]
