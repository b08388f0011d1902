"""TCP ports that are kept for one instance, so that nobody takes them before its programs listen.

A port is taken by binding to it without SO_REUSEADDR, which fails where anybody has it, whoever else is choosing at the same time. Then the
option is set, and the socket never listens: from there on a server that sets SO_REUSEADDR, as servers do, can bind and listen, while
automatic choice (`bind(2)` to port 0, `connect(2)`) and a second holder stay away. Numbers come from below the range of automatic choice.
Standard library only, light parts only: the supervisor imports this.
"""

# ruff: noqa: PTH123 - pathlib costs a third of the supervisor's whole start
from __future__ import annotations

import _socket
import os

_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range"
_FIRST, _LAST = 15_000, 32_000
_TRIES = 200


def hold(names: list[str]) -> tuple[list[_socket.socket], dict[str, int]]:
    """Take a port for each name; the sockets that keep them, and the numbers. Raises OSError when there is none."""
    sockets: list[_socket.socket] = []
    ports: dict[str, int] = {}
    last = _last()
    for name in names:
        holder, ports[name] = _taken(last)
        sockets.append(holder)
    return sockets, ports


def _taken(last: int) -> tuple[_socket.socket, int]:
    refusal: OSError | None = None
    for _ in range(_TRIES):
        number = _FIRST + int.from_bytes(os.urandom(4), "little") % (last - _FIRST)
        holder = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            # Every address: a server on any of them would be in the way of one that listens on all.
            holder.bind(("", number))
        except OSError as error:
            holder.close()
            refusal = error
            continue
        holder.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        return holder, number
    raise OSError(f"No free TCP port was found between {_FIRST} and {last} in {_TRIES} tries: {refusal}")


def _last() -> int:
    """The end of the range: where automatic choice begins, unless that leaves too little."""
    try:
        with open(_RANGE_FILE, encoding="ascii") as file:
            first_automatic = int(file.read().split()[0])
    except (OSError, ValueError, IndexError):
        return _LAST
    return first_automatic if first_automatic >= _FIRST + 1000 else _LAST
