"""Lets pip and uv inside a sandbox find packages where the platform's own pip does.

The administrator's configuration is read once, outside; inside it arrives as variables, and the local files and directories that it
names (wheels, `file://` indexes, constraints, certificates) are shown read-only at the paths they have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelyard.compute.backends.local.package_sources import as_uv_variables, pip_configuration, tool_environment

_PIP_OPTIONS = (
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "constraint",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "timeout",
    "retries",
    "prefer-binary",
    "only-binary",
    "no-binary",
    "disable-pip-version-check",
)
"""What says where packages come from. Options that say where they go, or how pip talks, are not the sandbox's."""

_VARIABLES = re.compile(
    r"(?i:(https?|ftp|all|no)_proxy)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|UV_(DEFAULT_INDEX|INDEX|INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|INDEX_STRATEGY|CONSTRAINT|INSECURE_HOST|NATIVE_TLS"
    r"|HTTP_TIMEOUT|INDEX_\w+_(USERNAME|PASSWORD))"
)
"""Variables of the platform's process that go inside as they are."""


@dataclass(frozen=True, slots=True)
class PackageAccess:
    """Variables to set inside, and host paths to show read-only."""

    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    paths: tuple[str, ...] = ()

    def local_hosts(self) -> list[str]:
        """`host:port` of every index or proxy that the configuration names."""
        words = [word for value in self.variables.values() for word in re.split(r"[\s,]+", value)]
        parts = [urlsplit(word) for word in words if re.match(r"https?://", word)]
        ports = {"http": 80, "https": 443}
        return sorted({f"{part.hostname}:{part.port or ports[part.scheme]}" for part in parts if part.hostname})


def find_package_access() -> PackageAccess:
    """Ask pip for its configuration (about half a second, once a process)."""
    configuration = pip_configuration()
    return access_of(configuration, tool_environment())


def access_of(configuration: Mapping[str, str], environment: Mapping[str, str]) -> PackageAccess:
    """What a configuration (option → value) and an environment mean for the inside."""
    variables = {name: value for name, value in environment.items() if _VARIABLES.fullmatch(name)}
    for name, value in as_uv_variables(configuration).items():
        variables.setdefault(name, value)
    for option in _PIP_OPTIONS:
        if value := " ".join(configuration.get(option, "").split()):
            variables[f"PIP_{option.upper().replace('-', '_')}"] = value
    words = [word for value in variables.values() for word in re.split(r"[\s,]+", value)]
    paths = [path for word in words if (path := _local_path(word)) is not None]
    return PackageAccess(variables, tuple(dict.fromkeys(paths)))


def _local_path(word: str) -> str | None:
    path = unquote(urlsplit(word).path) if word.startswith("file:") else word
    if not path.startswith("/") or path == "/" or not Path(path).exists():
        return None
    # The pages of an index usually point to files beside it.
    is_index = Path(path).name == "simple" and Path(path).parent != Path("/")
    return str(Path(path).parent if is_index else Path(path))
