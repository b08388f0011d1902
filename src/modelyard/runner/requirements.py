"""A requirements.txt: whether it asks for anything. The rest of its grammar is pip's business.

Source: https://pip.pypa.io/en/stable/reference/requirements-file-format/
"""

from __future__ import annotations

from modelyard.runner.outcomes import INSTALL_FAILED, StepFailed

_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def requirement_lines(path: str) -> list[str]:
    """The lines of the file that say something, without comments and continued lines joined. Raises `StepFailed`."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise StepFailed(f"'{path}' can't be read: {error.strerror}.", INSTALL_FAILED) from error
    encoding = next((name for mark, name in _BOMS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding, errors="replace")
    joined = text.replace("\\\r\n", "").replace("\\\n", "")
    lines = (_without_comment(line).strip() for line in joined.splitlines())
    return [line for line in lines if line]


def asks_for_hashes(lines: list[str]) -> bool:
    """Whether pip will insist on a hash for everything."""
    return any("--hash" in line or line == "--require-hashes" for line in lines)


def _without_comment(line: str) -> str:
    """A hash sign begins a comment at the beginning of a line and after white space."""
    for place, character in enumerate(line):
        if character == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line
