"""Puts files into the run directory of an instance that runs, which the instance itself can write to: its peers, and what it is told.

So nothing there is trusted: the directory is opened once, the draft is a new file under a name that can't be foreseen, and it takes its
place by a rename in that directory. Whatever lies at either name, a link among others, is neither followed nor written to.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress

from modelyard.compute.port import Peer

PEERS = "peers.json"


def write(run_directory: str, peers: Sequence[Peer]) -> None:
    """Write where its peers are."""
    content = [
        {
            "index": peer.index,
            "host": peer.network.host,
            "ports": dict(peer.network.ports),
            "interface": peer.network.interface,
        }
        for peer in sorted(peers, key=lambda peer: peer.index)
    ]
    put(run_directory, PEERS, json.dumps(content))


def put(run_directory: str, name: str, text: str) -> None:
    """Write a file whole, or not at all where the directory is gone, or where the instance has put a directory in the file's place."""
    try:
        directory = os.open(run_directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    draft = f".{name}.{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o644, dir_fd=directory), "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask: the instance is another user
            file.write(text)
        os.rename(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as error:
        with suppress(OSError):
            os.unlink(draft, dir_fd=directory)
        if not isinstance(error, IsADirectoryError):  # who does not want to be told keeps nobody from looking after it
            raise
    finally:
        os.close(directory)
