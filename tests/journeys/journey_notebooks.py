"""Notebooks of the journeys: made, opened as a browser does, and found again among the platform's instances."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

from journey_jupyter import Jupyter
from journey_platform import RunningPlatform

from modelyard.resources.notebooks.schemas import NotebookOut

IMAGE = "Ubuntu 22.04 CPU Python Notebook"
START_SECONDS = 240.0
TREE = r"""
import os, socket
root = b'/root/easymaker/tree'
os.makedirs(root + b'/empty directory/below')
os.chmod(root + b'/empty directory', 0o1711)
for number, name in enumerate([b'plain', '한글 🙂'.encode(), b'new\nline', b'\xff\xfe not UTF-8', b'-rf *', b'n' * 255, b'.hidden']):
    with open(root + b'/' + name, 'wb') as file:
        file.write(os.urandom(1000 * number))
    os.chmod(root + b'/' + name, (0o644, 0o400, 0o755, 0o4711, 0o000, 0o666, 0o600)[number])
    os.utime(root + b'/' + name, ns=(10**18 + number, 10**18 + 7 * number))
os.link(root + b'/plain', root + b'/empty directory/second name')
os.symlink(b'/root/nowhere', root + b'/broken')
os.symlink(b'../tree', root + b'/loop')
os.mkfifo(root + b'/pipe')
os.setxattr(root + b'/plain', b'user.note', b'kept')
with open(root + b'/sparse', 'wb') as file:
    file.seek(3 * 2**30)
    file.write(b'end')
os.chown(root + b'/.hidden', 0, 0)
os.sync()
"""
"""Run in a notebook: makes files of every kind that is easily lost or changed."""
DIGEST = r"""
import hashlib, os, stat
def told():
    for place, directories, files in os.walk(b'/root/easymaker/tree'):
        directories.sort()
        for name in sorted([*directories, *files]):
            path = place + b'/' + name
            s = os.lstat(path)
            yield path, s.st_mode, s.st_uid, s.st_gid, s.st_nlink, s.st_size if not stat.S_ISDIR(s.st_mode) else 0, s.st_mtime_ns
            yield s.st_size < 2**20 or s.st_blocks * 512 < 2**20
            if stat.S_ISLNK(s.st_mode):
                yield os.readlink(path)
            elif stat.S_ISREG(s.st_mode):
                yield os.listxattr(path), s.st_size >= 2**20 or not os.access(path, os.R_OK) or open(path, 'rb').read()
with open(b'/root/easymaker/tree/sparse', 'rb') as file:
    file.seek(3 * 2**30)
    last = file.read()
every = [*told(), last]
print(len(every), hashlib.sha256(repr(every).encode()).hexdigest())
"""
"""Run in a notebook: prints how many things there are in that tree, and the digest of all that can be told of them."""


def created(platform: RunningPlatform, name: str, **fields: object) -> NotebookOut:
    """A notebook that answers."""
    wanted = {"image": IMAGE, "flavor": "m2.c1m2", "boot_storage_size": 10, "data_storage_size": 10} | fields
    made = platform.client.notebooks.create(name, **wanted)  # type: ignore[arg-type]
    return platform.client.notebooks.wait(made.id, timeout_seconds=START_SECONDS)


def opened(platform: RunningPlatform, notebook_id: str) -> Jupyter:
    """Its Jupyter, as a browser that came in with a one-time code sees it."""
    code = urlsplit(platform.client.notebooks.open(notebook_id).url)
    door = ("127.0.0.1", platform.http_port)
    connection = http.client.HTTPConnection(*door)
    connection.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    answer = connection.getresponse()
    assert answer.status == 302, answer.read()
    cookie = answer.headers["set-cookie"].split(";")[0]
    connection.close()
    again = http.client.HTTPConnection(*door)
    again.request("GET", f"{code.path}?{code.query}", headers={"Host": code.netloc})
    assert again.getresponse().status != 302, "a code works once"
    return Jupyter(door, code.netloc, Cookie=cookie)


def instance_of(platform: RunningPlatform, notebook_id: str) -> str:
    """The running instance of a notebook."""
    found = [
        each.parent.name
        for each in (platform.home / "compute/instances").glob("*/instance.json")
        if json.loads(each.read_text())["account"] == notebook_id and not each.with_name("exit.json").exists()
    ]
    assert len(found) == 1, found
    return found[0]
