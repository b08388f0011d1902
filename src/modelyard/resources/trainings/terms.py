"""What trainings are found by: their tags, and the words of what people have written about them. Pure.

A term is a text in an index. `=key` and `=key=value` stand for a tag, `word` for a word; words are found by their beginnings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

MAX_TERM_CHARACTERS = 330
_MAX_WORDS = 60
_MAX_WORD_CHARACTERS = 40
_WORD = re.compile(r"[^\W_]+")
AFTER_ALL = "\U0010ffff"
"""Sorts after every character that text has."""


def terms_of(name: str, description: str | None, tags: Iterable[tuple[str, str]]) -> set[str]:
    """All terms of a training; of long texts the first words."""
    pairs = list(tags)
    texts = " ".join([name, *(f"{key} {value}" for key, value in pairs), description or ""])
    terms = set(words(texts)[:_MAX_WORDS])
    for key, value in pairs:
        terms |= {tag_term(key), tag_term(key, value)}
    return terms


def tag_term(key: str, value: str | None = None) -> str:
    """The term of a tag; without a value, that of its key."""
    return f"={key}" if value is None else f"={key}={value}"


def words(text: str) -> Sequence[str]:
    """The different words of a text in their order, without regard to case and form of letters."""
    return list(dict.fromkeys(word[:_MAX_WORD_CHARACTERS] for word in _WORD.findall(folded(text))))


def folded(text: str) -> str:
    """A text without regard to case and form of letters, in every script."""
    return unicodedata.normalize("NFKC", text).casefold()
