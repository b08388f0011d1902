"""The query language of the guide (Lucene syntax) as tantivy queries.

`luqum` parses; this walks its tree and asks the `Matcher` for each leaf. Words next to each other without an operator are alternatives, as in the
guide's own engine; `+` and NOT bind. Boosts are read and mean nothing, because answers are ordered by time. Regular expressions between
slashes are refused: wildcards do what people use them for, and are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any

import luqum.thread  # pyright: ignore[reportMissingTypeStubs]  luqum ships no types
import luqum.tree as tree  # pyright: ignore[reportMissingTypeStubs]  luqum ships no types
from luqum.exceptions import ParseError  # pyright: ignore[reportMissingTypeStubs]  luqum ships no types
from tantivy import Occur, Query

from modelyard.logstore.backends.tantivy import layout, matching
from modelyard.logstore.backends.tantivy.matching import Matcher, PatternTooLarge
from modelyard.logstore.backends.tantivy.moments import EXPECTED, Span, read_span
from modelyard.logstore.backends.tantivy.wording import STAR, WILDCARDS, Wording, read_wording, unescape, unquote
from modelyard.logstore.port import BadQuery

MAX_CLAUSES = 256
MAX_WILDCARDS = 16
MAX_PATTERN_CHARACTERS = 200
MAX_DEPTH = 48
MAX_SLOP = 100

_POSITION = re.compile(r"at position (\d+)")
_OPERATIONS = (tree.AndOperation, tree.OrOperation, tree.UnknownOperation)

# luqum's attributes have no types; they are read here, and only here.
_parse: Callable[[str], tree.Item] = getattr(luqum.thread, "parse")  # noqa: B009  untyped parameters, see above
_value: Callable[[Any], str] = attrgetter("value")
_name: Callable[[Any], str] = attrgetter("name")
_degree: Callable[[Any], float] = attrgetter("degree")
_pos: Callable[[Any], int | None] = attrgetter("pos")


def read_query(text: str, matcher: Matcher, now: datetime) -> Query:
    """The query that the text writes; an empty text finds all. Raises `BadQuery` with the position and what was expected."""
    if not text.strip():
        return matching.everything()
    wording = read_wording(text)
    try:
        root = _parse(wording.text)
    except ParseError as error:
        raise BadQuery(_complaint(text, wording, str(error))) from None
    except (ArithmeticError, ValueError):
        raise BadQuery(f"Position {_decoration(text)}: expected a number after ~ or ^.") from None
    return _Reading(matcher, wording, now).query(root, None, 0)


class _Reading:
    """One walk over one tree; counts what a query may cost."""

    def __init__(self, matcher: Matcher, wording: Wording, now: datetime) -> None:
        self._matcher = matcher
        self._wording = wording
        self._now = now
        self._clauses = 0
        self._wildcards = 0

    def query(self, node: tree.Item, field: str | None, depth: int) -> Query:
        """The query of a part of the tree; `field` is the one that an enclosing `field:` named."""
        if depth > MAX_DEPTH:
            raise self._bad(node, f"the query is nested deeper than {MAX_DEPTH}")
        if isinstance(node, _OPERATIONS):
            return self._operation(node, field, depth)
        if isinstance(node, tree.Not | tree.Prohibit):
            return matching.negation(self.query(node.children[0], field, depth + 1))
        if isinstance(node, tree.Plus | tree.Group | tree.FieldGroup | tree.Boost):
            return self.query(node.children[0], field, depth + 1)
        if isinstance(node, tree.SearchField):
            if field is not None:
                raise self._bad(
                    node,
                    f"a field inside the field {field!r}; expected a value (write \\: for a colon that belongs to it)",
                )
            return self.query(node.children[0], self._field(node), depth + 1)
        try:
            return self._leaf(node, field)
        except PatternTooLarge:
            raise self._bad(
                node, "this pattern matches in too many ways; expected fewer or shorter wildcards"
            ) from None

    def _operation(self, node: tree.Item, field: str | None, depth: int) -> Query:
        is_conjunction = isinstance(node, tree.AndOperation)
        clauses: list[tuple[Occur, Query]] = []
        for child in node.children:
            if isinstance(child, tree.Not | tree.Prohibit) and not isinstance(node, tree.OrOperation):
                clauses.append((Occur.MustNot, self.query(child.children[0], field, depth + 2)))
            elif is_conjunction or (isinstance(child, tree.Plus) and isinstance(node, tree.UnknownOperation)):
                clauses.append((Occur.Must, self.query(child, field, depth + 1)))
            else:
                clauses.append((Occur.Should, self.query(child, field, depth + 1)))
        return _boolean(clauses)

    def _leaf(self, node: tree.Item, field: str | None) -> Query:
        self._clauses += 1
        if self._clauses > MAX_CLAUSES:
            raise self._bad(node, f"the query has more than {MAX_CLAUSES} parts")
        if isinstance(node, tree.Word):
            return self._text(node, field, unescape(_value(node)))
        if isinstance(node, tree.Phrase):
            return self._text(node, field, unquote(_value(node)))
        if isinstance(node, tree.Range):
            low, high = node.children
            return self._range(node, field, low, high, bool(node.include_low), bool(node.include_high))
        if isinstance(node, tree.From):
            return self._range(node, field, node.children[0], None, bool(node.include), False)
        if isinstance(node, tree.To):
            return self._range(node, field, None, node.children[0], False, bool(node.include))
        if isinstance(node, tree.Fuzzy):
            return self._similar(node, field)
        if isinstance(node, tree.Proximity):
            return self._near(node, field)
        if isinstance(node, tree.Regex):
            raise self._bad(
                node,
                "regular expressions are not supported; expected a word (wildcards are * and ?; write \\/ for a slash)",
            )
        raise self._bad(node, "this can't be searched for; expected a word, a phrase or a range")

    def _text(self, node: tree.Item, field: str | None, text: str) -> Query:
        self._count_wildcards(node, text)
        if field == "_exists_":
            return self._presence(text)
        if field == "_missing_":
            return matching.negation(self._presence(text))
        if text == STAR:
            return matching.everything() if field is None or field == STAR else self._presence(field)
        if field is None or field == "body":
            found = self._matcher.body(text)
            if found is None:
                raise self._bad(node, "there is nothing to search for in this; expected at least one letter or digit")
            return found
        if field == "time":
            return self._matcher.during(self._span(node, text))
        if field in {"easymakerAppKey", "_source"}:
            if any(mark in text for mark in WILDCARDS):
                raise self._bad(node, f"{field} takes no wildcards; expected the whole value")
            return self._matcher.app_key(text) if field == "easymakerAppKey" else self._matcher.source(text)
        return self._matcher.tag(field, text)

    def _presence(self, field: str) -> Query:
        has_always = {"body", "time", "easymakerAppKey", "_source", STAR}
        return matching.everything() if field in has_always else self._matcher.presence(field)

    def _range(
        self,
        node: tree.Item,
        field: str | None,
        low: tree.Item | None,
        high: tree.Item | None,
        has_low: bool,
        has_high: bool,
    ) -> Query:
        first, last = self._bound(low), self._bound(high)
        if field is None:
            raise self._bad(node, "a range needs a field; expected something like time:[2026-01-01 TO *]")
        if field == "time":
            begin = None if first is None else self._span(node, first)
            end = None if last is None else self._span(node, last)
            return self._matcher.between(
                None if begin is None else begin.begin if has_low else begin.end,
                None if end is None else end.end if has_high else end.begin,
            )
        if field in {"body", "easymakerAppKey", "_source", "_exists_", "_missing_"}:
            raise self._bad(node, f"{field} has no ranges; expected a word or a phrase")
        numbers = [None if bound is None else layout.number_of(bound) for bound in (first, last)]
        if any(number is None and bound is not None for number, bound in zip(numbers, (first, last), strict=True)):
            raise self._bad(node, f"ranges of {field!r} are ranges of numbers; expected numbers or * as its ends")
        return self._matcher.numbers(field, numbers[0], numbers[1], has_low, has_high)

    def _bound(self, node: tree.Item | None) -> str | None:
        """One end of a range as text; None for an open one."""
        if node is None:
            return None
        if isinstance(node, tree.Prohibit):
            inner = self._bound(node.children[0])
            return None if inner is None else f"-{inner}"
        text = _value(node)
        if text == "*":
            return None
        return unquote(text) if isinstance(node, tree.Phrase) else unescape(text)

    def _similar(self, node: tree.Fuzzy, field: str | None) -> Query:
        # Lucene's old form gives a similarity below 1 (0.5 where none is written); the new one gives a distance.
        degree = _degree(node)
        distance = 2 if degree < 1 else int(degree)
        text = unescape(_value(node.term))
        if field not in {None, "body"} or distance > 2 or any(mark in text for mark in WILDCARDS):
            raise self._bad(
                node, "similar words (~) are searched in the body, at most 2 letters away and without wildcards"
            )
        found = self._matcher.similar(text, distance)
        if found is None:
            raise self._bad(node, 'expected exactly one word before ~ (for words near each other, write "one two"~3)')
        return found

    def _near(self, node: tree.Proximity, field: str | None) -> Query:
        slop = int(_degree(node))
        if field not in {None, "body"} or slop > MAX_SLOP:
            raise self._bad(node, f"words near each other (~) are searched in the body, at most {MAX_SLOP} words apart")
        found = self._matcher.body(unquote(_value(node.term)), slop)
        if found is None:
            raise self._bad(node, "there is nothing to search for in this; expected at least one letter or digit")
        return found

    def _span(self, node: tree.Item, text: str) -> Span:
        span = read_span(text, self._now)
        if span is None:
            raise self._bad(node, f"{_shown(text)!r} is not a time; expected {EXPECTED}")
        return span

    def _field(self, node: tree.SearchField) -> str:
        name = unescape(_name(node))
        self._count_wildcards(node, "" if name == STAR else name)
        return name

    def _count_wildcards(self, node: tree.Item, text: str) -> None:
        if not any(mark in text for mark in WILDCARDS):
            return
        self._wildcards += 1
        if self._wildcards > MAX_WILDCARDS:
            raise self._bad(node, f"the query has more than {MAX_WILDCARDS} words with wildcards")
        if len(text) > MAX_PATTERN_CHARACTERS:
            raise self._bad(node, f"a word with wildcards has at most {MAX_PATTERN_CHARACTERS} characters")

    def _bad(self, node: tree.Item, sentence: str) -> BadQuery:
        return BadQuery(f"Position {self._wording.origin(_pos(node) or 0)}: {sentence}.")


def _boolean(clauses: Sequence[tuple[Occur, Query]]) -> Query:
    """A boolean query; one of exclusions only means all but those."""
    if all(occur == Occur.MustNot for occur, _ in clauses):
        return Query.boolean_query([(Occur.Must, matching.everything()), *clauses])
    return Query.boolean_query(list(clauses))


def _complaint(text: str, wording: Wording, message: str) -> str:
    """The parser's message as a sentence about the user's own text."""
    expected = "expected a word, a phrase, a range, a field or '('"
    match = _POSITION.search(message)
    if match is None:
        return f"Position {len(text)}: the query ends too early; {expected}."
    position = wording.origin(int(match[1]))
    found = re.match(r"\w+|\S", text[position:])
    return f"Position {position}: unexpected {found[0] if found else 'end'!r}; {expected}."


def _decoration(text: str) -> int:
    """Where the first `~` or `^` with a malformed number stands."""
    match = re.search(r"[~^](?=[0-9]*\.[0-9]*\.|\.+(?!\d)|[0-9]*\.[0-9]+)", text)
    return match.start() if match else 0


def _shown(text: str) -> str:
    return text.replace(STAR, "*").replace(WILDCARDS[1], "?")
