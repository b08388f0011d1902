"""The text of a query before it is parsed: its size, its quotes and brackets, and the spellings that the parser does not know.

The guide writes `&&`, `||`, `!` and ranges with an open end (`{ TO 5]`); the parser knows AND, OR, NOT and `*`. They are rewritten here, with
a map back to where each character stood, so that every complaint names a position in what the user typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelyard.logstore.port import BadQuery

MAX_CHARACTERS = 4096
MAX_BRACKETS = 32

# Stand-ins for unescaped wildcards once the escapes are gone: two characters of the private use area, refused in queries.
STAR = "\ue000"
ANY = "\ue001"
WILDCARDS = STAR + ANY

_PIECE = re.compile(
    r"""
      (?P<phrase>"(?:[^\\"]|\\.)*")
    | (?P<escape>\\.)
    | (?P<both>(?<!\S)&&(?!\S)|(?<=[\s)"\]}])&&)
    | (?P<either>(?<!\S)\|\|(?!\S)|(?<=[\s)"\]}])\|\|)
    | (?P<negation>(?:(?<=[\s(:])|^)!(?=\s*[^\s=)]))
    | (?P<low>[\[{]\s*(?=TO[\s\]}]))
    | (?P<high>(?<=\s)TO\s*(?=[\]}]))
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<quote>")
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_REWRITTEN = {"both": " AND ", "either": " OR ", "negation": "NOT "}
_PARTNER = {")": "(", "]": "[{", "}": "[{"}


@dataclass(frozen=True, slots=True)
class Wording:
    """A query in the parser's spelling. `origins` holds, for each character of `text` and its end, the position in the user's text."""

    text: str
    origins: tuple[int, ...]

    def origin(self, position: int) -> int:
        """Where a character of `text` stood in the user's text."""
        return self.origins[min(max(position, 0), len(self.origins) - 1)]


def read_wording(text: str) -> Wording:
    """Check size, quotes and brackets, and rewrite the guide's spellings. Raises `BadQuery`."""
    if len(text) > MAX_CHARACTERS:
        raise BadQuery(f"The query has {len(text)} characters; at most {MAX_CHARACTERS} are allowed.")
    for position, character in enumerate(text):
        if character in WILDCARDS or character == "\x00":
            raise BadQuery(f"Position {position}: the character {character!r} can't be searched for.")
    pieces: list[str] = []
    origins: list[int] = []
    opened: list[tuple[str, int]] = []
    for match in _PIECE.finditer(text):
        kind = match.lastgroup or "other"
        if kind == "quote":
            raise BadQuery(f'Position {match.start()}: this quotation mark is never closed; expected another ".')
        _track_brackets(opened, match, kind)
        piece = _rewritten(match, kind)
        pieces.append(piece)
        is_rewritten = piece != match[0]
        origins.extend(match.start() + (0 if is_rewritten else index) for index in range(len(piece)))
    if opened:
        bracket, position = opened[-1]
        raise BadQuery(f"Position {position}: '{bracket}' is never closed; expected its partner before the end.")
    return Wording("".join(pieces), (*origins, len(text)))


def unescape(word: str) -> str:
    """A word without its backslashes; its own `*` and `?` become `STAR` and `ANY`, escaped ones stay what they are."""
    plain: list[str] = []
    is_escaped = False
    for character in word:
        if is_escaped:
            plain.append(character)
            is_escaped = False
        elif character == "\\":
            is_escaped = True
        else:
            plain.append({"*": STAR, "?": ANY}.get(character, character))
    return "".join(plain)


def unquote(phrase: str) -> str:
    """What a quoted phrase says. Wildcards mean themselves in it."""
    return re.sub(r"\\(.)", r"\1", phrase[1:-1], flags=re.DOTALL)


def _track_brackets(opened: list[tuple[str, int]], match: re.Match[str], kind: str) -> None:
    if kind in {"open", "low"}:
        opened.append((match[0][0], match.start()))
        if len(opened) > MAX_BRACKETS:
            raise BadQuery(f"Position {match.start()}: brackets are nested deeper than {MAX_BRACKETS}.")
    elif kind == "close":
        if not opened or opened[-1][0] not in _PARTNER[match[0]]:
            raise BadQuery(
                f"Position {match.start()}: '{match[0]}' closes nothing; expected a word, a phrase or an operator."
            )
        opened.pop()


def _rewritten(match: re.Match[str], kind: str) -> str:
    if kind == "low":
        return f"{match[0][0]}* "
    if kind == "high":
        return "TO *"
    return _REWRITTEN.get(kind, match[0])
