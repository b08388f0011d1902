"""What names users may give, and names that the platform derives."""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = {"Cc", "Cs", "Cn", "Zl", "Zp"}
_LINES = dict.fromkeys(map(ord, "\n\r\t"))
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
    return text_fault(name)


def text_fault(text: str, *, may_have_lines: bool = False) -> str | None:
    """What is wrong with a text of one line (or of several) that people read, as a sentence, or None."""
    text = text.translate(_LINES) if may_have_lines else text
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        return "must not contain control characters"
    return None


def environment_suffix(name: str) -> str:
    """A name as the tail of an environment variable: upper case, what is not a letter, digit or `_` becomes `_`.

    Letters of every script stay, so that names in one script don't all become the same variable.
    """
    upper = unicodedata.normalize("NFC", name).upper()
    return "".join(character if character.isalnum() else "_" for character in upper)
