"""Output as lines: pieces of endless ones, the last state of progress bars, gaps, and going on after a restart."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from modelyard.compute.port import LogChunk
from modelyard.logstore.port import LogLine, LogPage, LogQuery
from modelyard.resources.logs.lines import LEFT_OUT, LINE_BYTES, MOST_LINES, PIECE_BYTES, cut
from modelyard.resources.logs.records import read_record
from modelyard.resources.logs.service import Logs
from modelyard.resources.logs.shipper import Shipper, Source


def bodies(data: bytes) -> list[str]:
    return [line.body for line in cut(data, 0, is_end=True).lines]


def test_a_line_is_kept_once_it_has_its_end() -> None:
    found = cut(b"one\ntwo\nthr", 100, is_end=False)
    assert [(line.position, line.body) for line in found.lines] == [(100, "one"), (104, "two")]
    assert found.consumed == 8
    assert bodies(b"one\r\n\r\n  \nlast") == ["one", "last"]


@pytest.mark.parametrize("sent_at", [1e18, -1.0, float("nan"), float("inf"), 10**400, True, "now", 1.7e12, 0])
async def test_a_line_that_was_sent_at_no_moment_was_sent_now(sent_at: object) -> None:
    store = Kept()
    begun = datetime.now(UTC)
    await Logs(store).take("key", [{"body": "one", "sendTime": sent_at}, {"body": "two", "sendTime": 1_700_000_000.5}])
    one, two = store.lines
    assert begun <= one.time <= datetime.now(UTC)
    assert two.time == datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)


def test_a_progress_bar_is_one_line_with_its_last_state() -> None:
    bar = b"".join(b"\r%3d%%|####" % percent for percent in range(101))
    assert bodies(bar + b"\n") == ["100%|####"]
    assert bodies(bar + b"\r          \r\nafter\n") == ["100%|####", "after"]


def test_a_bar_without_an_end_gives_a_line_for_each_64_kib() -> None:
    bar = b"".join(b"\repoch %06d" % step for step in range(50_000))
    found = cut(bar, 0, is_end=False)
    assert len(found.lines) == found.consumed // (PIECE_BYTES - 20)
    assert all(line.body.startswith("epoch ") and len(line.body) == 12 for line in found.lines)
    assert found.open_bytes == 0


def test_a_long_line_comes_in_pieces_that_cut_no_character() -> None:
    text = "가나다" * 50_000
    found = cut(text.encode() + b"\nnext\n", 0, is_end=False)
    *pieces, last = found.lines
    assert "".join(piece.body for piece in pieces) == text
    assert (last.body, last.position) == ("next", len(text.encode()) + 1)
    assert max(len(piece.body.encode()) for piece in pieces) <= PIECE_BYTES


def test_the_rest_of_an_endless_line_is_left_out_and_said_so() -> None:
    kept: list[str] = []
    offset, open_bytes = 0, 0
    for number in range(100):
        found = cut(b"x" * 1_000_000 + (b"\nafter\n" if number == 99 else b""), offset, open_bytes, is_end=False)
        kept += [line.body for line in found.lines]
        offset, open_bytes = offset + found.consumed, found.open_bytes
    assert kept[-2:] == [LEFT_OUT, "after"]
    assert LINE_BYTES <= len("".join(kept[:-2])) <= LINE_BYTES + PIECE_BYTES


def test_bytes_that_are_no_text_survive_as_marks() -> None:
    (line,) = cut(b"\x00\xff\xfe binary \x80\n", 0, is_end=False).lines
    assert line.body == "��� binary �"
    assert len(bodies(random.Random(1).randbytes(300_000))) > 100


def test_many_lines_come_in_turns() -> None:
    found = cut(b"a\n" * 50_000, 0, is_end=False)
    assert (len(found.lines), found.consumed) == (MOST_LINES, 2 * MOST_LINES)


class Kept:
    """A log store that keeps lines in a list."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []

    async def append(self, lines: Sequence[LogLine]) -> None:
        known = {(line.source, line.position) for line in self.lines}
        self.lines += [line for line in lines if (line.source, line.position) not in known]

    async def last_position(self, source: str) -> int | None:
        return max((line.position for line in self.lines if line.source == source), default=None)

    async def search(self, query: LogQuery) -> LogPage:
        raise NotImplementedError

    async def remove_before(self, time) -> int:
        raise NotImplementedError


class Printed:
    """An instance's output, of which only what lies behind `begin` is still there."""

    def __init__(self) -> None:
        self.data = b""
        self.begin = 0
        self.is_over = False

    async def read(self, instance_id: str, offset: int, limit_bytes: int) -> LogChunk:
        first = max(offset, self.begin)
        data = self.data[first : first + limit_bytes]
        return LogChunk(first, data, first + len(data), self.is_over and first + len(data) >= len(self.data))


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def printed() -> Printed:
    return Printed()


SOURCE = Source("w.1.0", "app", "easymaker.training", {"trainingId": "w"})


async def test_a_shipper_that_starts_again_at_any_byte_repeats_and_loses_nothing(kept, printed) -> None:
    chance = random.Random(3)
    whole = b"".join(
        chance.choice(
            (b"line %d\n" % n, b"\rbar %d" % n, b"\n", b"\n" + b"y" * chance.randrange(60_000, 140_000) + b"\n")
        )
        for n in range(400)
    )
    while len(printed.data) < len(whole):
        printed.data = whole[: len(printed.data) + chance.randrange(1, 200_000)]
        await Shipper(kept, printed.read).ship(SOURCE)  # a new one each time: the server was killed
    printed.is_over = True
    turn = await Shipper(kept, printed.read).ship(SOURCE)
    assert turn.is_all_there
    expected = cut(whole, 0, is_end=True).lines
    assert [(line.position, line.body) for line in kept.lines] == [tuple(line) for line in expected]


async def test_output_that_was_dropped_is_told_in_its_place(kept, printed) -> None:
    printed.data = b"first\n" + b"z" * 5000 + b"\nlast\n"
    shipper = Shipper(kept, printed.read)
    printed.data, whole = printed.data[:6], printed.data
    await shipper.ship(SOURCE)
    printed.data, printed.begin = whole, 5007
    await shipper.ship(SOURCE)
    assert [line.body for line in kept.lines][::2] == ["first", "last"]
    gap = kept.lines[1]
    assert gap.level == "WARNING"
    assert "5,001 bytes of output are missing here" in gap.body


async def test_who_prints_without_end_leaves_a_turn_to_others(kept, printed) -> None:
    printed.data = b"0123456789abcdef\n" * (20 << 16)
    turn = await Shipper(kept, printed.read).ship(SOURCE)
    assert turn.is_behind
    assert not turn.is_all_there


def test_a_record_is_a_line_with_fields() -> None:
    line = '\x1e{"level": "ERROR", "action": "Inference.Response", "inferenceId": "a-1", "status": 500, "body": "{}", "endpointId": "mine"}'
    record = read_record(line)
    assert record is not None
    assert (record.body, record.level) == ("{}", "ERROR")
    assert record.fields == {"inferenceId": "a-1", "action": "Inference.Response", "status": "500"}


@pytest.mark.parametrize(
    "line", ["plain", "\x1e", "\x1e{", "\x1e[1]", "\x1e{}", '\x1e{"body": 1}', "\x1e" + "[" * 100_000]
)
def test_what_is_no_record_is_text(line: str) -> None:
    assert read_record(line) is None
