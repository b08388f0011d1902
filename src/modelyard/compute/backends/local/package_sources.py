"""Where packages come from, as pip is configured, said in uv's words.

An administrator configures pip (files, PIP_* variables): an index of the company, a directory of wheels, a cap on versions, a
certificate. uv installs many times faster and does not read any of that. So pip is asked for what is in force and uv gets the same
by its own variables: never on a command line, where every user of the machine could read an index's password. uv's own
configuration stays in force as well. The platform itself names no index.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import uv

from modelyard.compute.backends.local.build_errors import BuildFailed, last_line

_SECTIONS = ("global", "install", ":env:")
"""In pip's order: a later one replaces the value of an earlier one."""

_PLACES = ("index-url", "extra-index-url", "find-links")

_DROPPED = (
    "PYTHONDONTWRITEBYTECODE",  # environments are compiled once; with this, TensorFlow imports in 11 s instead of 3
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "UV_PYTHON",
    "UV_PROJECT",
    "UV_PROJECT_ENVIRONMENT",
    "UV_SYSTEM_PYTHON",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
)
"""Variables of the caller's own Python work that would bend a build; everything else (proxies, indexes, certificates) is honoured."""


def uv_binary() -> str:
    """The path of uv, from the platform's own dependencies."""
    return uv.find_uv_bin()


def tool_environment() -> dict[str, str]:
    """The variables for pip and uv: this process's, because pip's and uv's contract is to be configured by them."""
    return {key: value for key, value in os.environ.items() if key not in _DROPPED}


@dataclass(frozen=True, slots=True)
class PackageSources:
    """What is in force for `pip install`: option → value, e.g. `{"find-links": "/srv/wheels"}`."""

    configuration: Mapping[str, str]

    @property
    def has_places(self) -> bool:
        """Whether pip was told of any place of its own."""
        return any(self.configuration.get(place) for place in _PLACES)

    def uv_environment(self) -> dict[str, str]:
        """The variables for uv, with pip's places added. What the user told uv itself wins."""
        environment = tool_environment()
        for name, value in as_uv_variables(self.configuration).items():
            environment.setdefault(name, value)
        if environment.get("UV_LINK_MODE") == "symlink":
            del environment["UV_LINK_MODE"]  # a sandbox sees the environment, not uv's cache
        return environment

    def uv_options(self) -> tuple[str, ...]:
        """What uv takes on its command line alone (nothing secret)."""
        is_closed = self.configuration.get("no-index", "").lower() in {"1", "true", "yes", "on"}
        return ("--no-index",) if is_closed else ()


def read_package_sources() -> PackageSources:
    """Ask pip how it is configured (half a second). Raises `BuildFailed` as `pip_configuration` does."""
    return PackageSources(pip_configuration())


def pip_configuration() -> Mapping[str, str]:
    """pip's options that are in force. Raises `BuildFailed` where pip itself can't read its configuration."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    try:
        done = subprocess.run(
            command, env=tool_environment(), cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed("pip does not say how it is configured: `pip config list` took more than a minute.") from None
    if done.returncode != 0:
        # Going on without it could fetch from the wrong place, or gigabytes of the wrong build.
        raise BuildFailed(f"pip's configuration can't be read: {last_line(done.stderr)}")
    return parse_pip_configuration(done.stdout)


def as_uv_variables(configuration: Mapping[str, str]) -> dict[str, str]:
    """pip's options as variables of uv. Options without a counterpart (`user`, `quiet` …) don't matter to a build."""
    variables: dict[str, str] = {}
    for option, (name, separator) in _COUNTERPARTS.items():
        value = configuration.get(option, "")
        if value.split():
            variables[name] = separator.join(value.split())
    if "UV_INDEX" in variables or "UV_FIND_LINKS" in variables:
        # pip takes the best version that any place offers; uv would stop at the first index that knows the name.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


_COUNTERPARTS: Mapping[str, tuple[str, str]] = {
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", " "),
    "proxy": ("ALL_PROXY", " "),
    "default-timeout": ("UV_HTTP_TIMEOUT", " "),
    "timeout": ("UV_HTTP_TIMEOUT", " "),
}


def parse_pip_configuration(listing: str) -> dict[str, str]:
    """Read the output of `pip config list`: lines such as `global.find-links='/srv/wheels'`."""
    by_section: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        key, _, quoted = line.partition("=")
        section, _, option = key.strip().rpartition(".")
        if section in by_section:
            by_section[section][option] = _unquoted(quoted.strip())
    merged: dict[str, str] = {}
    for section in _SECTIONS:
        merged |= by_section[section]
    return merged


def _unquoted(quoted: str) -> str:
    if len(quoted) >= 2 and quoted[0] == quoted[-1] and quoted[0] in "'\"":
        return quoted[1:-1].replace("\\n", "\n").replace("\\'", "'")
    return quoted
