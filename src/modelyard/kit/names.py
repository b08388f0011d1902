"""What names users may give, and names that the platform derives."""

from __future__ import annotations

import re
import unicodedata

_ENVIRONMENT_UNSAFE = re.compile(r"[^A-Z0-9_]")
MAX_NAME_CHARACTERS = 50
MAX_DESCRIPTION_CHARACTERS = 255


def name_fault(name: str, limit: int = MAX_NAME_CHARACTERS) -> str | None:
    """What is wrong with a resource's name, as a sentence, or None.

    A name has 1 to `limit` characters, none of them a control character, and neither begins nor ends with white space. Letters of any
    script are welcome.
    """
    if not name or not name.strip():
        return "must not be empty"
    if len(name) > limit:
        return f"must have at most {limit} characters (it has {len(name)})"
    if name != name.strip():
        return "must not begin or end with white space"
    if any(unicodedata.category(character) in {"Cc", "Cs", "Cn"} for character in name):
        return "must not contain control characters"
    return None


def environment_suffix(name: str) -> str:
    """A name as the tail of an environment variable: upper case, what is not a letter, digit or `_` becomes `_`."""
    return _ENVIRONMENT_UNSAFE.sub("_", name.upper())
