"""How a line becomes a document: the schema, the words of a body, the tags of its fields.

Three kinds of text are told apart. The body is cut into words, so that it is found by any of them. Every other field, the guide's own
and those that a sender invented, becomes *tags* in one text field: `name NUL value`. One field for all of them means that unknown names need
no schema, and that exact values, wildcards, existence and number ranges are all questions to one dictionary of terms. The wire form
of the line is stored beside them and never indexed.

Chinese, Japanese and Korean characters are words of one character each. Korean glues particles to its nouns (학습이, 학습을), so a search by whole
words would miss most of what it should find; a phrase of single syllables finds the noun in all of them.
"""

from __future__ import annotations

import math
import re
import struct
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import orjson
import tantivy

from modelyard.logstore.backends.tantivy.errors import LineNotValid
from modelyard.logstore.port import LogLine

LAYOUT = "1"

# Hangul (jamo, compatibility jamo, syllables), kana, Han with its extensions. The same ranges cut bodies (in tantivy) and patterns (here).
SYLLABLES = (
    "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
)
MAX_WORD_BYTES = 250
MAX_VALUE_CHARACTERS = 512
MAX_POSITION = 2**63 - 1

TEXT_MARK = "\x00"
NUMBER_MARK = "\x01"
PRESENCE_MARK = "\x02"

# The order of a line: milliseconds since 1970 in the upper 42 bits, the low 22 bits of its arrival below. Lines of one millisecond come in
# the order of their arrival, unless more than four million of them share it.
ARRIVAL_BITS = 22
MAX_MILLISECONDS = 2**42 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MARKS = re.compile("[\x00-\x02]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def build_schema() -> tantivy.Schema:
    """The fields of every partition."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("app", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("source", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("tags", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("body", tokenizer_name="words", index_option="position")
    builder.add_integer_field("at", fast=True)
    builder.add_unsigned_field("order", fast=True)
    builder.add_unsigned_field("arrival", fast=True)
    builder.add_unsigned_field("position", fast=True)
    builder.add_bytes_field("wire", stored=True)
    return builder.build()


def build_analyzer() -> tantivy.TextAnalyzer:
    """Cuts a body into words: runs of letters and digits in lower case, syllables one by one."""
    words = rf"[[\p{{L}}\p{{N}}\p{{M}}]--[{SYLLABLES}]]+|[{SYLLABLES}]"
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(words))
    return builder.filter(tantivy.Filter.lowercase()).filter(tantivy.Filter.remove_long(MAX_WORD_BYTES)).build()


def check_line(line: LogLine) -> None:
    """Raise `LineNotValid` for a line that has no usable identity or time."""
    for name, identity in (("source", line.source), ("app key", line.app_key)):
        if not identity or len(identity) > MAX_VALUE_CHARACTERS or not (identity.isascii() or _is_whole(identity)):
            raise LineNotValid(
                f"a log line's {name} must be text of 1 to {MAX_VALUE_CHARACTERS} characters, not {identity[:50]!r}"
            )
    if not 0 <= line.position <= MAX_POSITION:
        raise LineNotValid(f"position {line.position} of source {line.source!r} is not between 0 and 2^63-1")
    if line.time.utcoffset() is None:
        raise LineNotValid(f"line {line.position} of source {line.source!r} has a time without an offset")


def to_document(line: LogLine, order: int, arrival: int) -> tantivy.Document:
    """The document of a line."""
    document = tantivy.Document()
    document.add_text("app", line.app_key)
    document.add_text("source", line.source)
    document.add_text("body", clean(line.body))
    for tag in _tags(line):
        document.add_text("tags", tag)
    document.add_integer("at", microseconds(line.time))
    document.add_unsigned("order", order)
    document.add_unsigned("arrival", arrival)
    document.add_unsigned("position", line.position)
    document.add_bytes("wire", _wire(line))
    return document


def natural_order(line: LogLine, arrival: int) -> int:
    """Where the line stands among all lines, from its time and its arrival (64 bits)."""
    milliseconds = min(max(microseconds(line.time) // 1000, 0), MAX_MILLISECONDS)
    return milliseconds << ARRIVAL_BITS | arrival & (1 << ARRIVAL_BITS) - 1


def microseconds(time: datetime) -> int:
    """Microseconds since 1970; exact, which a float of seconds is not."""
    return (time - _EPOCH) // _MICROSECOND


def clean(text: str) -> str:
    """Text as it is indexed and asked for: composed Unicode, no half characters (what a broken encoding left in a line)."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())


def tag_value(value: str) -> str:
    """A field's value as it stands in a tag: composed, lower case, without marks, of bounded length."""
    return _MARKS.sub("", clean(value).lower())[:MAX_VALUE_CHARACTERS]


def tag_name(name: str) -> str:
    """A field's name as it stands in a tag."""
    return _MARKS.sub("", clean(name))[:MAX_VALUE_CHARACTERS]


def number_of(text: str) -> float | None:
    """The number that the text writes, or None. Words like `nan` and `inf` are words."""
    if not _NUMBER.fullmatch(text):
        return None
    number = float(text)
    return number if math.isfinite(number) else None


def sortable(number: float) -> str:
    """Sixteen hexadecimal digits that sort as the number does (IEEE 754 bits, sign flipped)."""
    (bits,) = struct.unpack(">Q", struct.pack(">d", number + 0.0))
    bits = bits ^ (1 << 64) - 1 if bits >> 63 else bits | 1 << 63
    return f"{bits:016x}"


def _is_whole(text: str) -> bool:
    """Whether the text has no half characters."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _tags(line: LogLine) -> Iterator[str]:
    """The tags of all fields but the body; the guide's own win over a sender's field of the same name."""
    own = {"category": line.category, "logLevel": line.level, "logType": line.log_type}
    for name, value in {**line.fields, **own}.items():
        yield from _tags_of(name, value)


@lru_cache(maxsize=4096)
def _tags_of(name: str, value: str) -> tuple[str, ...]:
    """The tags of one field. Most fields repeat from line to line, so they are remembered."""
    key = tag_name(name)
    text = tag_value(value)
    tags = (f"{key}{TEXT_MARK}{text}", f"{key}{PRESENCE_MARK}")
    number = number_of(text)
    return tags if number is None else (*tags, f"{key}{NUMBER_MARK}{sortable(number)}")


def _wire(line: LogLine) -> bytes:
    """The line as the API shows it: the fields of the guide's appendix, then the sender's own."""
    time = line.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shape = {
        **line.fields,
        "easymakerAppKey": line.app_key,
        "category": line.category,
        "logLevel": line.level,
        "body": line.body,
        "logType": line.log_type,
        "time": time,
    }
    try:
        return orjson.dumps(shape)
    except orjson.JSONEncodeError:
        # A half character somewhere; JSON in UTF-8 has no place for it.
        repaired = {key.encode("utf-8", "replace").decode(): _repaired(value) for key, value in shape.items()}
        return orjson.dumps(repaired)


def _repaired(value: str) -> str:
    return str(value).encode("utf-8", "replace").decode()
