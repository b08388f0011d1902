"""Why a build failed, as one sentence for a person.

The tools that install packages print pages; a user sees one line. What the tools said stays in the build's log.
"""

from __future__ import annotations

import re
from pathlib import Path

_CREDENTIALS = re.compile(r"(://)[^/\s@]+@")
_DECORATION = re.compile(r"^(?:[\s│├╰╭─▶×*|`'-]+|(?:error|hint|caused by|cause|warning)\s*:\s*)+", re.IGNORECASE)
_NO_SPACE = re.compile(r"No space left on device|os error 28|Disk quota exceeded|os error 122")
_NO_NETWORK = re.compile(
    r"dns error|Temporary failure in name resolution|Name or service not known|Connection refused|Connection reset"
    r"|Network is unreachable|error sending request|tcp connect error|timed out|Failed to fetch|client error|NewConnectionError",
    re.IGNORECASE,
)
_FORBIDDEN = re.compile(r"\b(401|403)\b.{0,20}(Unauthorized|Forbidden)", re.IGNORECASE)
_ABSENT = re.compile(
    r"there (?:is|are) no versions? of (?P<version>[A-Za-z0-9._-]+\S*)"
    r"|Because (?P<package>[A-Za-z0-9._-]+) was not found in the (?:package registry|provided package locations)"
    r"|No matching distribution found for (?P<pip>\S+)"
    r"|Because (?P<wheel>\S+) has no (?:wheels|usable wheels|source distribution)",
)
_NOT_BUILT = re.compile(
    r"Failed (?:to|building)(?: download and)? (?:build|wheel for) `?(?P<package>[A-Za-z0-9._=-]+)`?"
)
_BECAUSE = re.compile(r"\b[Bb]ecause (.*?),? we can conclude")
MAX_SENTENCE_CHARACTERS = 500


class BuildFailed(Exception):
    """The environment could not be built; the message says why in one sentence and what to do."""


def explain(output: str, *, name: str, python: str, machine: str, root: Path) -> str:
    """What a failed installer's output comes down to.

    Args:
        output: everything that uv or pip printed.
        name: the environment's, for people; `python` its version, `machine` e.g. `x86_64`, `root` where environments are kept.
    """
    text = mask_credentials(output)
    if _NO_SPACE.search(text):
        return (
            f"No space is left on the disk that holds {root}, uv's cache or the temporary directory: "
            "free some space (or remove images that are not needed) and build again."
        )
    if _FORBIDDEN.search(text):
        return f"A package index refused access ({_matching_line(_FORBIDDEN, text)}): check the credentials in pip's or uv's configuration."
    not_built = _NOT_BUILT.search(text)
    if not_built:
        return _limited(
            f"The package {not_built['package']} has no ready wheel for Python {python} on {machine} and compiling it failed: "
            f"{last_line(text)}"
        )
    if _NO_NETWORK.search(text):
        reason = _matching_line(_NO_NETWORK, text)
        return _limited(
            f"No package index could be reached ({reason}): give this machine network access, or configure a local index for pip or uv."
        )
    absent = _ABSENT.search(text)
    if absent:
        wanted = next(group for group in absent.groups() if group)
        required = re.search(rf"you require ({re.escape(wanted)}[^,\s]*)", text)
        wanted = required.group(1) if required else wanted
        return (
            f"No package index configured here offers {wanted.strip('`.,')} for Python {python} on {machine}: "
            f"correct the requirements of '{name}', or add an index to pip's or uv's configuration."
        )
    if "No solution found" in text or "ResolutionImpossible" in text:
        flat = " ".join(_DECORATION.sub("", line).strip() for line in text.splitlines())
        said = "; ".join(_BECAUSE.findall(flat)) or last_line(text)
        return _limited(f"The requirements of '{name}' contradict each other: {said}")
    return _limited(f"Installing the packages of '{name}' failed: {last_line(text) or 'the installer said nothing'}")


def mask_credentials(text: str) -> str:
    """The text with user names and passwords in addresses made unreadable."""
    return _CREDENTIALS.sub(r"\1***@", text)


def last_line(text: str) -> str:
    """The last line that says something, without a tool's decoration."""
    for line in reversed(mask_credentials(text).splitlines()):
        bare = _DECORATION.sub("", line).strip()
        if bare and not line.strip().lower().startswith("hint"):
            return bare
    return ""


def _matching_line(pattern: re.Pattern[str], text: str) -> str:
    line = next((line for line in reversed(text.splitlines()) if pattern.search(line)), "")
    return _limited(_DECORATION.sub("", line).strip(), 160)


def _limited(sentence: str, limit: int = MAX_SENTENCE_CHARACTERS) -> str:
    return sentence if len(sentence) <= limit else sentence[: limit - 1] + "…"
