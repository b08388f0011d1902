"""Running pip so that it adds to an image without changing what the image is about.

The image's framework takes part in every resolution as a pinned requirement: a requirements.txt that wants another version of it, or a
dependency that it can't live with, is a conflict that pip explains, instead of a silent second framework in front of the image's.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import INSTALL_FAILED, StepFailed
from modelyard.runner.plan import Plan
from modelyard.runner.process import start, wait
from modelyard.runner.stop import Stop

_FRAMEWORKS = (
    "tensorflow",
    "tensorflow-cpu",
    "tensorflow-intel",
    "torch",
    "torchvision",
    "torchaudio",
    "jax",
    "jaxlib",
)
# Distributions that hold the same package: who asks for one is served by another.
_TWINS = ("tensorflow", "tensorflow-cpu", "tensorflow-intel")
# Settings that would send packages elsewhere than into the layer.
_DROPPED = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER")
_STOP_SECONDS = 3.0
_KEPT_VERSIONS = 3
_KEPT_LINES = 200


@dataclass(frozen=True)
class Frameworks:
    """The frameworks of the image: (distribution, version) of each."""

    found: tuple[tuple[str, str], ...]

    @staticmethod
    def of_image() -> Frameworks:
        """Those that this interpreter sees."""
        found: list[tuple[str, str]] = []
        for name in _FRAMEWORKS:
            try:
                found.append((name, metadata.version(name)))
            except metadata.PackageNotFoundError:
                continue
        return Frameworks(tuple(found))

    def pins(self) -> list[str]:
        """The frameworks as requirements, under all their names."""
        return [f"{name}=={version}" for name, version in (*self.found, *self._aliases())]

    def write_aliases(self, library: str) -> None:
        """Let pip find the image's TensorFlow under the other names of its distribution too.

        Half of all requirements.txt say `tensorflow`, which an image with `tensorflow-cpu` satisfies; pip would fetch it again.
        """
        for alias, version in self._aliases():
            directory = os.path.join(library, f"{alias.replace('-', '_')}-{version}.dist-info")
            os.makedirs(directory)
            for file, content in (
                ("METADATA", f"Metadata-Version: 2.1\nName: {alias}\nVersion: {version}\n"),
                ("INSTALLER", "modelyard\n"),
                ("RECORD", ""),
            ):
                with open(os.path.join(directory, file), "w", encoding="utf-8") as written:
                    written.write(content)

    def check_untouched(self, library: str) -> None:
        """Raise `StepFailed` when the layer has brought another version of one of them (possible where pip insists on hashes)."""
        versions = dict((*self.found, *self._aliases()))
        for distribution in metadata.distributions(path=[library]):
            name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"] or "")).lower()
            expected = versions.get(name)
            if expected is not None and distribution.version != expected:
                raise StepFailed(
                    f"The requirements can't be installed: they bring {name} {distribution.version} and the image has "
                    f"{name} {expected}. Choose an image with that version, or leave {name} out.",
                    INSTALL_FAILED,
                )

    def _aliases(self) -> list[tuple[str, str]]:
        """The names that the image's TensorFlow has elsewhere, with its version."""
        twins = {name: version for name, version in self.found if name in _TWINS}
        if not twins:
            return []
        version = next(iter(twins.values()))
        return [(alias, version) for alias in _TWINS if alias not in twins]


def install(python: str, path: str, pins: list[str], plan: Plan, journal: Journal, stop: Stop) -> None:
    """Install a requirements file into the environment of `python`. Raises `StepFailed` with pip's own reason."""
    argv = [
        python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--no-color",
        "--progress-bar",
        "off",
        "--no-compile",
        "--no-user",
    ]
    argv += ["--disable-pip-version-check", "--no-warn-script-location", "-r", path, *pins]
    kept: list[str] = []

    def take(line: str) -> None:
        if not line.startswith("Requirement already satisfied"):
            journal.say(f"pip: {line}")
        kept.append(line)
        del kept[:-_KEPT_LINES]

    code = _run(argv, _environment(plan.cache_dir), os.path.dirname(path) or ".", stop, take)
    stop.check()
    if code != 0:
        raise StepFailed(
            f"The requirements can't be installed: {explain(kept) or f'pip ended with {code}'}", INSTALL_FAILED
        )


def explain(lines: list[str]) -> str:
    """pip's reason in one sentence, out of its last lines; empty when it gave none."""
    reasons = [line[6:].strip() for line in lines if line.startswith("ERROR:")]
    is_conflict = any(reason.startswith("ResolutionImpossible") for reason in reasons)
    telling = [reason for reason in reasons if not reason.startswith(("ResolutionImpossible", "Ignored the following"))]
    sentence = " ".join(dict.fromkeys(map(_without_old_versions, telling[-3:])))
    if is_conflict:
        causes = _indented_after(lines, "The conflict is caused by:")
        sentence = f"{sentence} {'; '.join(causes)}".strip()
    if not sentence:
        sentence = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return sentence if len(sentence) <= 700 else sentence[:699] + "…"


def _without_old_versions(reason: str) -> str:
    """pip names every version that there is, hundreds of some packages, before it comes to the point."""
    head, mark, rest = reason.partition(" (from versions: ")
    versions, _, tail = rest.partition(")")
    names = versions.split(", ")
    if not mark or len(names) <= _KEPT_VERSIONS:
        return reason
    return f"{head} (there are {len(names)} others, the newest {', '.join(names[-_KEPT_VERSIONS:])}){tail}"


def _indented_after(lines: list[str], heading: str) -> list[str]:
    found: list[str] = []
    is_inside = False
    for line in lines:
        if is_inside and line.startswith("    "):
            found.append(line.strip())
        elif is_inside:
            break
        is_inside = is_inside or line.startswith(heading)
    return found


def _environment(cache_dir: str) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    env["PYTHONUNBUFFERED"] = "1"
    env["PIP_ROOT_USER_ACTION"] = "ignore"  # as a variable, since older releases of pip refuse the option
    if "PIP_CACHE_DIR" not in env and "PIP_NO_CACHE_DIR" not in env:
        # pip takes no cache of somebody else (each workload has a user of its own) and warns about it every time.
        cache = os.path.join(cache_dir, "pip")
        try:
            os.makedirs(cache, exist_ok=True)
            is_own = os.stat(cache).st_uid == os.geteuid()
        except OSError:
            is_own = False
        env.update({"PIP_CACHE_DIR": cache} if is_own else {"PIP_NO_CACHE_DIR": "1"})
    return env


def _run(argv: list[str], env: dict[str, str], cwd: str, stop: Stop, take: Callable[[str], None]) -> int:
    """Run a program, giving each line of its output to `take`; its exit code."""
    reader, writer = os.pipe()
    try:
        pid = start(argv, env, cwd, writer)
    finally:
        os.close(writer)

    def listen() -> None:
        with open(reader, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                take(line.rstrip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    code = wait(pid, stop, _STOP_SECONDS)
    listener.join(_STOP_SECONDS)
    return code
