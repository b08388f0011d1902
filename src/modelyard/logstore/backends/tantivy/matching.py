"""Questions to the index: what one field must hold, as tantivy queries.

tantivy's own query parser is not used: it answers some queries with nothing instead of an error. Everything here is built from terms,
phrases, automata over the dictionary of terms and ranges over columns, none of which reads query syntax.
"""

from __future__ import annotations

import re

import tantivy
from tantivy import FieldType, Occur, Query

from modelyard.logstore.backends.tantivy import layout
from modelyard.logstore.backends.tantivy.moments import Span
from modelyard.logstore.backends.tantivy.wording import ANY, STAR, WILDCARDS

_PIECE = re.compile(rf"[{layout.SYLLABLES}]|[^\W_{layout.SYLLABLES}{WILDCARDS}]|[{WILDCARDS}]|.", re.DOTALL)
_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_HEXADECIMAL = "0123456789abcdef"
_LOWEST = "0" * 16
_HIGHEST = "f" * 16


class PatternTooLarge(Exception):
    """A pattern whose automaton would have too many states."""


def everything() -> Query:
    """All lines."""
    return Query.all_query()


def negation(query: Query) -> Query:
    """All lines that the query does not find."""
    return Query.boolean_query([(Occur.Must, everything()), (Occur.MustNot, query)])


class Matcher:
    """Builds the questions. Text that comes in has its escapes removed; `STAR` and `ANY` stand for wildcards."""

    def __init__(self, schema: tantivy.Schema, analyzer: tantivy.TextAnalyzer) -> None:
        self._schema = schema
        self._analyzer = analyzer

    def app_key(self, key: str) -> Query:
        """Lines of one app key."""
        return Query.term_query(self._schema, "app", _whole(key), "basic")

    def source(self, source: str) -> Query:
        """Lines of one source."""
        return Query.term_query(self._schema, "source", _whole(source), "basic")

    def between(self, begin: int | None, end: int | None) -> Query:
        """Lines from `begin` on and before `end`, both in microseconds since 1970."""
        if begin is None and end is None:
            return everything()
        low, high = _bounded(begin), _bounded(end)
        return Query.range_query(self._schema, "at", FieldType.Integer, low, high, True, high is None)

    def during(self, span: Span) -> Query:
        """Lines within the span."""
        return self.between(span.begin, span.end)

    def column(self, name: str, low: int | None, high: int | None) -> Query:
        """Lines whose unsigned column lies between the two, both excluded."""
        return Query.range_query(self._schema, name, FieldType.Unsigned, low, high, low is None, high is None)

    def body(self, text: str, slop: int = 0) -> Query | None:
        """Bodies that hold these words one after the other, up to `slop` others between them; None if there is no word in the text.

        A word with wildcards stands for any word that it matches. A `*` of its own between words stands for any distance.
        """
        if not any(mark in text for mark in WILDCARDS):
            return self._phrase(self._analyzer.analyze(layout.clean(text)), slop)
        if not text.strip(STAR):
            return everything()
        phrases = [phrase for phrase in map(self._pattern, _phrases(layout.clean(text))) if phrase is not None]
        if not phrases:
            return None
        return phrases[0] if len(phrases) == 1 else Query.boolean_query([(Occur.Must, phrase) for phrase in phrases])

    def similar(self, text: str, distance: int) -> Query | None:
        """Bodies with a word at most `distance` (0 to 2) letters away; None unless the text is exactly one word."""
        words = self._analyzer.analyze(layout.clean(text))
        if len(words) != 1:
            return None
        return Query.fuzzy_term_query(self._schema, "body", words[0], distance)

    def tag(self, name: str, value: str) -> Query:
        """Lines whose field has the value. Name and value may have wildcards; letter case of values does not matter."""
        name, value = layout.tag_name(name), layout.tag_value(value)
        if not value.strip(STAR) and value:
            return self.presence(name)
        if not any(mark in name + value for mark in WILDCARDS):
            return Query.term_query(self._schema, "tags", f"{name}{layout.TEXT_MARK}{value}", "basic")
        return self._tags(f"{_name_pattern(name)}{layout.TEXT_MARK}{_value_pattern(value)}")

    def presence(self, name: str) -> Query:
        """Lines that have the field at all."""
        name = layout.tag_name(name)
        if any(mark in name for mark in WILDCARDS):
            return self._tags(f"{_name_pattern(name)}{layout.PRESENCE_MARK}")
        return Query.term_query(self._schema, "tags", f"{name}{layout.PRESENCE_MARK}", "basic")

    def numbers(self, name: str, low: float | None, high: float | None, has_low: bool, has_high: bool) -> Query:
        """Lines whose field is a number between the bounds; `has_low` and `has_high` tell whether the bounds belong to the range."""
        first = _LOWEST if low is None else _step(layout.sortable(low), 0 if has_low else 1)
        last = _HIGHEST if high is None else _step(layout.sortable(high), 0 if has_high else -1)
        if first > last:
            return Query.empty_query()
        digits = "|".join(_digit_ranges(first, last))
        return self._tags(f"{_name_pattern(layout.tag_name(name))}{layout.NUMBER_MARK}({digits})")

    def _phrase(self, words: list[str], slop: int) -> Query | None:
        if not words:
            return None
        if len(words) == 1:
            return Query.term_query(self._schema, "body", words[0])
        return Query.phrase_query(self._schema, "body", list(words), slop)

    def _pattern(self, words: list[str]) -> Query | None:
        """A phrase of words of which some have wildcards."""
        if not any(mark in word for word in words for mark in WILDCARDS):
            return self._phrase(self._analyzer.analyze(" ".join(words)), 0)
        patterns = [_value_pattern(word.lower()) for word in words]
        if len(patterns) == 1:
            return self._automaton("body", patterns[0])
        for pattern in patterns:
            # tantivy builds a phrase's automata only when it searches; one that is too large is refused here already.
            self._automaton("body", pattern)
        return Query.regex_phrase_query(self._schema, "body", list(patterns))

    def _tags(self, pattern: str) -> Query:
        return self._automaton("tags", pattern)

    def _automaton(self, field: str, pattern: str) -> Query:
        try:
            return Query.regex_query(self._schema, field, pattern)
        except ValueError:
            raise PatternTooLarge from None


def _whole(text: str) -> str:
    """The text without half characters, which no kept key or source has and tantivy can't be asked for."""
    return text.encode("utf-8", "replace").decode()


def _phrases(text: str) -> list[list[str]]:
    """The text cut into words as the analyzer would, wildcards being letters; a `*` on its own begins a new phrase."""
    runs: list[str] = []
    is_joined = False
    for piece in _PIECE.findall(text):
        is_syllable = re.fullmatch(f"[{layout.SYLLABLES}]", piece) is not None
        is_letter = not is_syllable and (piece in WILDCARDS or re.fullmatch(r"[^\W_]", piece) is not None)
        if is_letter and is_joined:
            runs[-1] += piece
        elif is_letter or is_syllable:
            runs.append(piece)
        is_joined = is_letter
    phrases: list[list[str]] = [[]]
    for run in runs:
        if run.strip(STAR):
            phrases[-1].append(run)
        else:
            phrases.append([])
    return [phrase for phrase in phrases if phrase]


def _value_pattern(text: str) -> str:
    return _escaped(text).replace(STAR, "(?s:.)*").replace(ANY, "(?s:.)")


def _name_pattern(text: str) -> str:
    """A field's name as a pattern; its wildcards stop at the mark after it."""
    return _escaped(text).replace(STAR, "[^\x00-\x02]*").replace(ANY, "[^\x00-\x02]")


def _escaped(text: str) -> str:
    # Runs of stars say nothing that one does not, and cost the automaton a state each.
    return _SPECIAL.sub(r"\\\1", re.sub(f"{STAR}+", STAR, text))


def _bounded(value: int | None) -> int | None:
    return None if value is None else min(max(value, -(2**62)), 2**62)


def _step(digits: str, by: int) -> str:
    """The neighbour of a sortable number."""
    return f"{min(max(int(digits, 16) + by, 0), 2**64 - 1):016x}"


def _digit_ranges(first: str, last: str) -> list[str]:
    """Patterns that together match the strings of hexadecimal digits from `first` to `last`, both of one length."""
    if first.strip("0") == "" and last.strip("f") == "":
        return ["[0-9a-f]*"]
    if first[0] == last[0]:
        return [first[0] + rest for rest in _digit_ranges(first[1:], last[1:])]
    rest = len(first) - 1
    patterns = [first[0] + tail for tail in _digit_ranges(first[1:], "f" * rest)]
    between = _HEXADECIMAL[_HEXADECIMAL.index(first[0]) + 1 : _HEXADECIMAL.index(last[0])]
    if between:
        # All numbers have the same length, so "any digits" says enough, with one state instead of a chain.
        patterns.append(f"[{between}][0-9a-f]*")
    return patterns + [last[0] + tail for tail in _digit_ranges("0" * rest, last[1:])]
