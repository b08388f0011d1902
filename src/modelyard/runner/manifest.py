"""The list of what a complete checkpoint consists of, written after all of it is there.

A destination holds the files under their own names, for everybody to read, and the manifest beside them. Where a file of the checkpoint
before has to be replaced, its new content waits under another name (`STAGED`) until the manifest that speaks of it is written, and only
then takes its place. So at every moment there is one complete checkpoint: that of the manifest, each file of it either in its place or
waiting. Whoever knows nothing of manifests reads the files under their names and sees a mixture for that one moment alone.
"""

from __future__ import annotations

from modelyard.runner import digests, jsons
from modelyard.runner.light import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar

    _Place = TypeVar("_Place")


MANIFEST = ".modelyard-checkpoint.json"
STAGED = ".modelyard-checkpoint/"
_FORMAT = 1


class Member(NamedTuple):
    """A file of a checkpoint. `token` names its content: an md5, or size and time of writing on a mounted directory.

    `is_large`: an object in segments, whose token no listing shows; its size has to do.
    """

    size: int
    token: str
    is_large: bool = False


def is_own(name: str) -> bool:
    """Whether a file is the platform's and no part of a checkpoint."""
    return name == MANIFEST or name.startswith(STAGED)


def waiting_name(below: str, name: str, token: str) -> str:
    """Where new content of a file waits. The file's name is part of it: on a mounted directory two files of one size, written within one
    tick of the clock, have the same token."""
    return f"{below}{digests.md5_of(name.encode(errors='surrogatepass'))}-{token}"


def staged_name(name: str, member: Member) -> str:
    """Where a member's content waits for its manifest."""
    return waiting_name(STAGED, name, member.token)


def to_text(members: Mapping[str, Member], written_at: str) -> str:
    """The manifest of a complete checkpoint; `written_at` is for people."""
    files = [{"name": name, **member._asdict()} for name, member in sorted(members.items())]
    return jsons.dumps({"format": _FORMAT, "written_at": written_at, "files": files})


def from_text(text: str | bytes) -> dict[str, Member] | None:
    """The checkpoint that a manifest speaks of, or None for what is none."""
    try:
        content: dict[str, Any] = jsons.loads(text)
        if content["format"] != _FORMAT:
            return None
        return {
            str(file["name"]): Member(int(file["size"]), str(file["token"]), bool(file["is_large"]))
            for file in content["files"]
        }
    except (ValueError, KeyError, TypeError):
        return None


def chosen(
    members: Mapping[str, Member], there: Mapping[str, _Place], is_content: Callable[[_Place, Member], bool]
) -> dict[str, _Place] | None:
    """What to read for each file of a complete checkpoint, or None when one of them is nowhere: somebody else has changed it.

    Args:
        there: everything that lies at the destination, by name.
        is_content: whether something that is there has the content that the manifest speaks of.
    """
    found: dict[str, _Place] = {}
    for name, member in members.items():
        candidates: Iterable[str] = (name, staged_name(name, member))
        place = next(
            (
                there[candidate]
                for candidate in candidates
                if candidate in there and is_content(there[candidate], member)
            ),
            None,
        )
        if place is None:
            return None
        found[name] = place
    return found
