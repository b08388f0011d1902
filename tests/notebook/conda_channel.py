"""Makes a conda channel in a directory: packages in both formats, and the index that solvers read."""

from __future__ import annotations

import bz2
import hashlib
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PLACEHOLDER = "/placeholder_" + "x" * 200
"""What an installer replaces by the environment's directory."""


def add_package(
    channel: Path, subdir: str, name: str, version: str, files: Mapping[str, str], depends: Sequence[str] = ()
) -> None:
    """A package: in the newer format (`.conda`) for `noarch`, else in the older one (`.tar.bz2`). Files in `bin` are programs."""
    stem = f"{name}-{version}-0"
    index: dict[str, Any] = {
        "name": name, "version": version, "build": "0", "build_number": 0, "depends": [*depends], "subdir": subdir,
        **({"noarch": "generic"} if subdir == "noarch" else {}),
    }  # fmt: skip
    paths = {"paths_version": 1, "paths": [_path(path, content.encode()) for path, content in files.items()]}
    info = {
        "info/index.json": json.dumps(index),
        "info/paths.json": json.dumps(paths),
        "info/files": "\n".join(files),
    }
    place = channel / subdir
    place.mkdir(parents=True, exist_ok=True)
    is_new_format = subdir == "noarch"
    file = place / (stem + (".conda" if is_new_format else ".tar.bz2"))
    if is_new_format:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as parts:
            parts.writestr("metadata.json", json.dumps({"conda_pkg_format_version": 2}))
            parts.writestr(f"pkg-{stem}.tar.zst", _zstd(_tar(files)))
            parts.writestr(f"info-{stem}.tar.zst", _zstd(_tar(info)))
    else:
        file.write_bytes(bz2.compress(_tar({**files, **info})))
    content = file.read_bytes()
    record = index | {
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        "size": len(content),
    }
    repodata = place / "repodata.json"
    known = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": {}}
    listing = json.loads(repodata.read_text()) if repodata.exists() else known
    listing["packages.conda" if is_new_format else "packages"][file.name] = record
    repodata.write_text(json.dumps(listing))


def _path(path: str, content: bytes) -> dict[str, Any]:
    has_prefix = PLACEHOLDER.encode() in content
    return {
        "_path": path,
        "path_type": "hardlink",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_in_bytes": len(content),
        **({"prefix_placeholder": PLACEHOLDER, "file_mode": "text"} if has_prefix else {}),
    }


def _tar(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text.encode()), 0o755 if name.startswith("bin/") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def _zstd(content: bytes) -> bytes:
    """A Zstandard frame of raw blocks (RFC 8878, section 3.1.1): the form, without the compression."""
    frame = struct.pack("<IBQ", 0xFD2FB528, 0b11100000, len(content))
    for at in range(0, len(content), 2**16):
        block = content[at : at + 2**16]
        is_last = at + 2**16 >= len(content)
        frame += struct.pack("<I", len(block) << 3 | is_last)[:3] + block
    return frame
