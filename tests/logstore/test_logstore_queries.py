"""The query language, asked of a real index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from modelyard.logstore.backends.tantivy import layout, matching, querying
from modelyard.logstore.backends.tantivy.store import LogStoreSettings, TantivyLogs
from modelyard.logstore.port import BadQuery, LogLine, LogQuery

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
MATCHER = matching.Matcher(layout.build_schema(), layout.build_analyzer())
BODIES = [
    "epoch 1 train_loss=0.5",
    "학습이 시작되었습니다",
    "error: disk full at /dev/sda",
    "Error in normal and performance",
    "모델 학습을 완료했습니다 epoch 2",
]


@pytest.fixture
async def five_lines(tmp_path: Path) -> AsyncIterator[TantivyLogs]:
    """Five lines an hour apart, seen from an hour after the last."""
    lines = [
        LogLine(
            source="instance-1",
            position=number,
            time=BEGIN + timedelta(hours=number),
            level="ERROR" if number == 2 else "INFO",
            category="easymaker.training",
            log_type="NHNCloud-AIEasyMaker",
            app_key="key-1",
            body=body,
            fields={"trainingId": f"tr-{number}", "n": str(number * 10 - 10)}
            | ({"log.x": "Alpha"} if number == 1 else {}),
        )
        for number, body in enumerate(BODIES)
    ]
    settings = LogStoreSettings(gather_seconds=0.005)
    async with TantivyLogs(tmp_path / "logs", settings, clock=lambda: BEGIN + timedelta(hours=4)) as store:
        await store.append(lines)
        yield store


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [0, 1, 2, 3, 4]),
        ("  ", [0, 1, 2, 3, 4]),
        ("*", [0, 1, 2, 3, 4]),
        ("*:*", [0, 1, 2, 3, 4]),
        # The guide's examples.
        ('category:"easymaker.training"', [0, 1, 2, 3, 4]),
        ('logType:"NHNCloud\\-AIEasyMaker"', [0, 1, 2, 3, 4]),
        ('category:"easymaker.training" AND trainingId:"tr\\-3"', [3]),
        ('category:"easymaker.inference"', []),
        ("body:normal AND performance", [3]),
        ('body:"normal AND performance"', [3]),
        # Words and phrases of the body.
        ("epoch", [0, 4]),
        ("EPOCH", [0, 4]),
        ("loss", [0]),
        ("train_loss", [0]),
        ("body:0.5", [0]),
        ('"disk full"', [2]),
        ('"full disk"', []),
        ('"full disk"~2', [2]),
        ("epohc~", [0, 4]),
        ("학습", [1, 4]),
        ("시작", [1]),
        ("body:학습을", [4]),
        ('"학습을 완료"', [4]),
        ("\u1112\u1161\u11a8\u1109\u1173\u11b8", [1, 4]),
        # Operators.
        ("epoch AND NOT 학습", [0]),
        ("epoch NOT 학습", [0]),
        ("NOT epoch", [1, 2, 3]),
        ("-epoch", [1, 2, 3]),
        ("NOT NOT epoch", [0, 4]),
        ("epoch OR NOT 학습", [0, 2, 3, 4]),
        ("+epoch -학습 foo", [0]),
        ("epoch error", [0, 2, 3, 4]),
        ("epoch && !학습", [0]),
        ("epoch || error", [0, 2, 3, 4]),
        ("(epoch OR error) AND NOT (disk OR 학습)", [0, 3]),
        ("body:(+disk +full)", [2]),
        ("body:(disk 시작)", [1, 2]),
        ("epoch^2 error^0.1", [0, 2, 3, 4]),
        # Wildcards.
        ("body:err*", [2, 3]),
        ("*ror", [2, 3]),
        ("e?och", [0, 4]),
        ("train_l*", [0]),
        ("학습*", [1, 4]),
        ("학*완료", [4]),
        ("category:easymaker.*", [0, 1, 2, 3, 4]),
        ("trainingId:tr-?", [0, 1, 2, 3, 4]),
        ("trainingId:*-3", [3]),
        ("log.*:alpha", [1]),
        # Fields.
        ("logLevel:error", [2]),
        ("trainingId:tr-1", [1]),
        ("_exists_:log.x", [1]),
        ("log.x:*", [1]),
        ("!_exists_:log.x", [0, 2, 3, 4]),
        ("_missing_:log.x", [0, 2, 3, 4]),
        ("unheardOf:1", []),
        ("easymakerAppKey:key-1 AND disk", [2]),
        # Ranges of numbers and of times.
        ("n:[0 TO 20]", [1, 2, 3]),
        ("n:{0 TO 20}", [2]),
        ("n:[0 TO 20}", [1, 2]),
        ("n:[-10 TO 0}", [0]),
        ("n:>10", [3, 4]),
        ("n:<=0", [0, 1]),
        ("n:{ TO 10]", [0, 1, 2]),
        ("n:[25 TO }", [4]),
        ("n:[* TO *]", [0, 1, 2, 3, 4]),
        ("n:[9.5 TO 1e1]", [2]),
        ("n:[20 TO 10]", []),
        ("time:[2026-01-02T01:00:00Z TO *]", [1, 2, 3, 4]),
        ("time:{2026-01-02T01:00:00Z TO *]", [2, 3, 4]),
        ("time:{* TO 2026-01-02T02:00:00Z]", [0, 1, 2]),
        ("time:{* TO 2026-01-02T02:00:00Z}", [0, 1]),
        ("time:2026-01-02", [0, 1, 2, 3, 4]),
        ("time:2026-01-01", []),
        ('time:"2026-01-02T03:00:00Z"', [3]),
        ("time:2026-01-02T03:00", [3]),
        ('time:"2026-01-02T12:00:00.000+09:00"', [3]),
        ("time:[now-2h TO now]", [2, 3, 4]),
        ("time:>now-1h", [4]),
    ],
)
async def test_finds(five_lines: TantivyLogs, text: str, found: list[int]) -> None:
    page = await five_lines.search(LogQuery("key-1", text, is_ascending=True))
    assert [BODIES.index(line["body"]) for line in page.lines] == found
    assert page.total_count == len(found)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("(a", "Position 0: '(' is never closed"),
        ("a)", "Position 1: ')' closes nothing"),
        ("a AND", "Position 5: the query ends too early; expected a word"),
        ("a AND OR b", "Position 6: unexpected 'OR'"),
        ("a && && b", "Position 5: unexpected"),
        ('x "abc', "Position 2: this quotation mark is never closed"),
        ("foo:", "Position 4: the query ends too early"),
        ("()", "Position 1: unexpected ')'"),
        ("a time:yesterday", "Position 7: 'yesterday' is not a time; expected a time such as"),
        ("time:2026-13-01", "is not a time"),
        ("time:2026-1*", "'2026-1*' is not a time"),
        ("[1 TO 2]", "Position 0: a range needs a field"),
        ("n:[a TO b]", "expected numbers or *"),
        ("body:[a TO b]", "body has no ranges"),
        ("n:[" + "9" * 400 + " TO *]", "expected numbers or *"),
        ("/err.*/", "Position 0: regular expressions are not supported"),
        ("http://host", "regular expressions are not supported"),
        ("...", "nothing to search for"),
        ("a:b:c", "Position 2: a field inside the field 'a'"),
        ("a~9", "at most 2 letters away"),
        ("n:a~1", "searched in the body"),
        ('"a b"~1000', "at most 100 words apart"),
        ("a~1.2.3", "Position 1: expected a number after ~ or ^"),
        ("a^1.2.3", "Position 1: expected a number after ~ or ^"),
        ("easymakerAppKey:k*", "takes no wildcards"),
        # Queries that would run away.
        ("x" * 5000, "at most 4096"),
        ("a " * 300, "more than 256 parts"),
        ("(" * 40 + "a" + ")" * 40, "nested deeper than 32"),
        ("NOT " * 100 + "a", "nested deeper than 48"),
        ("-" * 4000 + "a", "nested deeper than 48"),
        ("ab* " * 20, "more than 16 words with wildcards"),
        ("n:*" + "a" * 300, "at most 200 characters"),
        ("n:*a" + "?" * 60, "matches in too many ways"),
        ("body:x-*a" + "?" * 60, "matches in too many ways"),
        ("\x00", "can't be searched for"),
    ],
)
async def test_refuses_with_position_and_expectation(five_lines: TantivyLogs, text: str, complaint: str) -> None:
    with pytest.raises(BadQuery) as refusal:
        await five_lines.search(LogQuery("key-1", text))
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        "*",
        "*:*",
        "easymakerAppKey:key-1",
        "a OR easymakerAppKey:key-1",
        "NOT x",
        "NOT easymakerAppKey:key-2",
        ") OR (*",
        "_exists_:n",
    ],
)
async def test_no_text_reaches_another_app_key(five_lines: TantivyLogs, text: str) -> None:
    try:
        page = await five_lines.search(LogQuery("key-2", text))
    except BadQuery:
        return
    assert page.total_count == 0
    assert page.lines == []


_FRAGMENTS = st.sampled_from(
    ["a", "학", "AND", "OR", "NOT", "TO", "(", ")", "[", "]", "{", "}", '"', "*", "?", ":", "\\", "~", "^", "+", "-", "!", "&&", "||", "/",
     "<", ">", "=", "time", "body", "n", "1", ".", " ", " ", "easymakerAppKey:key-1", "_exists_", "\n", "\ud800"]
)  # fmt: skip


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.lists(_FRAGMENTS, max_size=25).map("".join) | st.text(max_size=40))
def test_any_text_is_a_query_or_a_bad_query(text: str) -> None:
    try:
        querying.read_query(text, MATCHER, BEGIN)
    except BadQuery as refusal:
        assert str(refusal).endswith(".")


@given(numbers=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2))
def test_sortable_numbers_sort_as_numbers(numbers: list[float]) -> None:
    assert [layout.sortable(number) for number in sorted(numbers)] == sorted(map(layout.sortable, numbers))
