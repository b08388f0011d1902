"""What processes have used of the processors, by /proc: it counts the same on a machine that has other work, where the clock does not."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def of_trees(roots: Iterable[int]) -> float:
    """Seconds of these processes and of all below them that live, and of the children that these have waited for."""
    used: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            process = int(path.parent.name)
            used[process] = sum(map(int, fields[11:15])) / _TICKS
            children[int(fields[1])].append(process)
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        process = waiting.pop()
        if process not in seen:
            seen.add(process)
            waiting.extend(children[process])
    return sum(used.get(process, 0.0) for process in seen)
