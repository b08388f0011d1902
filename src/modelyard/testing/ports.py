"""Ports for servers of tests and benchmarks."""

from __future__ import annotations

import itertools
import os
import random
import socket

_FIRST, _COUNT, _SLICES = 20_000, 12_000, 4
"""Below what Linux hands to connections by itself (32,768 and up), so that no connection takes a port between the look and its use."""


def free_port() -> int:
    """A port of the loopback address that nobody listens on, and that this process has not been given before.

    Workers of pytest-xdist draw from different ones: two that look at the same time would find the same port free.
    """
    for port in _ports:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("the ports go round for ever")


def _slice() -> list[int]:
    length = _COUNT // _SLICES
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SLICES
    first, start = _FIRST + worker * length, random.randrange(length)  # noqa: S311 - no secret
    return [first + (start + number) % length for number in range(length)]


_ports = itertools.cycle(_slice())
