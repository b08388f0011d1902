"""A store's refusal as a sentence: what it means for the run, followed by the server's own words."""

from __future__ import annotations

from modelyard.runner import jsons
from modelyard.runner.light import cast
from modelyard.runner.outcomes import BAD_SOURCE, NO_PERMISSION, NO_SPACE, Damaged, NotInStore, StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LONGEST = 400


def refusal(status: int, content: bytes, purpose: str, label: str) -> StepFailed:
    """The failure that an HTTP answer stands for.

    Args:
        status: 300 to 599, not one of those that may pass.
        content: the beginning of the answer's body: the platform's JSON envelope, plain text or HTML.
        purpose: `read` or `write`: which permission is needed.
    """
    words = server_message(content)
    said = f" The store says: {words}" if words else ""
    if status == 401:
        return StepFailed(f"The run's token was not accepted for {label} (401).{said}", NO_PERMISSION)
    if status == 403:
        return StepFailed(f"The {purpose} permission is missing for {label} (403).{said}", NO_PERMISSION)
    if status == 404 and purpose == "write":
        return NotInStore(f"There is no container to take {label} (404).{said}")
    if status == 404:
        return NotInStore(f"{label} does not exist (404).{said}")
    if status == 422:
        return Damaged(f"The content of {label} did not arrive as it was sent (422).{said}")
    if status == 507:
        return StepFailed(f"The object store has no room left for {label} (507).{said}", NO_SPACE)
    if status == 413:
        return StepFailed(f"The object store does not take an object of this size at {label} (413).{said}", NO_SPACE)
    return StepFailed(f"The object store answered {status} for {label}.{said}", BAD_SOURCE)


def server_message(content: bytes) -> str:
    """The words in an error's body, on one line; empty for none."""
    text = content.decode("utf-8", errors="replace").strip()
    if text.startswith("{"):
        text = _from_envelope(text)
    elif "<" in text:
        import re  # noqa: PLC0415 - for pages of proxies alone

        text = re.sub(r"<[^>]*>", " ", text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _from_envelope(text: str) -> str:
    try:
        content: dict[str, Any] = jsons.loads(text)
    except ValueError:
        return text
    header = content.get("header")
    if isinstance(header, dict):
        message = cast("dict[str, Any]", header).get("resultMessage")
        if isinstance(message, str):
            return message
    for key in ("message", "detail", "error"):
        if isinstance(content.get(key), str):
            return cast("str", content[key])
    return text
