"""Whether a TCP port is free, and who has it if not."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from modelyard.gateway.backends.envoy.settings import ListenAddress

_LISTENING = "0A"  # TCP_LISTEN of the kernel's tcp_states.h, as /proc/net/tcp writes it


def bind_fault(address: ListenAddress) -> OSError | None:
    """Why the address can't be listened on, or None.

    Tried without SO_REUSEPORT, so that a port shared by a process that would let us in counts as taken too.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address.host, address.port))
            trial.listen(1)
        except OSError as fault:
            return fault
    return None


def describe(address: ListenAddress, fault: OSError) -> str:
    """A sentence for a person about an address that can't be listened on."""
    if fault.errno == errno.EADDRINUSE:
        holders = sorted(set(port_holders(address.port)))
        who = " by " + ", ".join(f"{name} (process {pid})" for pid, name in holders) if holders else ""
        return f"port {address.port} on {address.host} is taken{who}; end that program or choose another port"
    if fault.errno == errno.EACCES:
        return f"port {address.port} needs administrator rights; choose a port above 1023"
    if fault.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {address.host}; choose one that it has, or 0.0.0.0 for all"
    return f"can't listen on {address}: {fault.strerror}"


def port_holders(port: int) -> Iterator[tuple[int, str]]:
    """Process ids and names of whoever listens on the port, as far as /proc tells: other users' processes may stay unseen."""
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listening_inodes(Path("/proc/net") / table, port)}
    if not inodes:
        return
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(entry.readlink()) in links for entry in (process / "fd").iterdir()):
                yield int(process.name), (process / "comm").read_text().strip()
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else


def _listening_inodes(table: Path, port: int) -> Iterator[str]:
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
            yield fields[9]
