"""Event files as programs leave them: growing, rotated, cut, broken, replaced, and not files at all."""

from __future__ import annotations

import contextlib
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
from event_writer import bytes_field, event, record, scalars, simple, tensor, varint
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.eventfiles import reading, records
from modelyard.eventfiles.messages import ReadingFailed
from modelyard.eventfiles.process import ReadingProcess
from modelyard.eventfiles.reading import Found, Piece, Place, read_new
from modelyard.eventfiles.scalars import NotAnEvent, read_event

VERSION = record(b"\x09" + struct.pack("<d", 1.7e9) + bytes_field(3, b"brain.Event:2"))
NAME = "events.out.tfevents.1700000000.host"


def read(directory: Path, places: Mapping[str, Place] | None = None) -> Found:
    return read_new(str(directory), places or {}, 1 << 30, 1 << 30)


def rows(pieces: list[Piece]) -> list[tuple[str, int, float]]:
    return [
        (piece.points.names[index], step, value)
        for piece in pieces
        for index, step, value in zip(piece.points.series, piece.points.steps, piece.points.values, strict=True)
    ]


def places_after(found: Found) -> dict[str, Place]:
    return {piece.path: Place(piece.inode, piece.end) for piece in found.pieces}


def test_a_growing_file_is_read_on_from_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(VERSION + scalars(0, {"loss": 0.5}))
    first = read(tmp_path)
    assert rows(first.pieces) == [("loss", 0, 0.5)]
    with path.open("ab") as file:
        file.write(scalars(1, {"loss": 0.25, "accuracy": 1.0}))
    second = read(tmp_path, places_after(first))
    assert rows(second.pieces) == [("loss", 1, 0.25), ("accuracy", 1, 1.0)]
    assert second.pieces[0].points.times.tolist() == [1_700_000_001_000_000] * 2
    assert read(tmp_path, places_after(second)).pieces == []


def test_every_way_to_cut_a_record_waits_for_the_rest(tmp_path: Path) -> None:
    path = tmp_path / NAME
    whole, last = VERSION + scalars(0, {"loss": 0.5}), scalars(1, {"loss": 0.25})
    for cut in range(len(last)):
        path.write_bytes(whole + last[:cut])
        found = read(tmp_path)
        assert rows(found.pieces) == [("loss", 0, 0.5)]
        assert found.pieces[0].end == len(whole)
        assert found.pieces[0].corrupt_bytes == 0
        path.write_bytes(whole + last)
        assert rows(read(tmp_path, places_after(found)).pieces) == [("loss", 1, 0.25)]


def test_a_broken_record_costs_itself_alone(tmp_path: Path) -> None:
    parts = [VERSION, *(scalars(step, {"loss": float(step)}) for step in range(5))]
    whole = b"".join(parts)
    begin = len(parts[0]) + len(parts[1]) + len(parts[2])
    for offset in range(begin, begin + len(parts[3])):
        broken = bytearray(whole)
        broken[offset] ^= 0x55
        (tmp_path / NAME).write_bytes(broken)
        found = read(tmp_path)
        assert rows(found.pieces) == [("loss", step, float(step)) for step in (0, 1, 3, 4)]
        assert found.pieces[0].corrupt_bytes > 0
        assert found.pieces[0].end == len(whole)


def test_zeros_left_by_a_crash_are_stepped_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(VERSION + bytes(5000) + scalars(1, {"loss": 2.0}))
    found = read(tmp_path)
    assert rows(found.pieces) == [("loss", 1, 2.0)]
    assert found.pieces[0].corrupt_bytes > 4000


def test_many_files_and_directories_name_their_metrics(tmp_path: Path) -> None:
    for directory in ("train", "validation", "deep/er"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / NAME).write_bytes(VERSION + scalars(0, {"epoch_loss": 1.0}))
    (tmp_path / NAME).write_bytes(VERSION + scalars(0, {"loss": 1.0}))
    (tmp_path / f"{NAME}.2").write_bytes(VERSION + scalars(1, {"loss": 2.0}))
    (tmp_path / "notes.txt").write_text("not an event file")
    names = {name for name, _, _ in rows(read(tmp_path).pieces)}
    assert names == {"loss", "train/epoch_loss", "validation/epoch_loss", "deep/er/epoch_loss"}


def test_a_file_that_was_replaced_or_cut_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(VERSION + scalars(0, {"loss": 1.0}) + scalars(1, {"loss": 2.0}))
    places = places_after(read(tmp_path))
    path.write_bytes(VERSION + scalars(0, {"loss": 3.0}))
    assert rows(read(tmp_path, places).pieces) == [("loss", 0, 3.0)]
    other = tmp_path / "other"
    other.write_bytes(VERSION + scalars(0, {"loss": 4.0}) + scalars(1, {"loss": 5.0}) + scalars(2, {"loss": 6.0}))
    other.rename(path)
    assert len(rows(read(tmp_path, places).pieces)) == 3


def test_a_restart_of_the_log_is_told_between_the_points(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(
        VERSION
        + scalars(0, {"loss": 1.0})
        + scalars(5, {"loss": 2.0})
        + record(event(3, 1.7e9, restart=True))
        + scalars(3, {"loss": 9.0})
    )
    first, second = read(tmp_path).pieces
    assert (first.restart_step, rows([first])) == (None, [("loss", 0, 1.0), ("loss", 5, 2.0)])
    assert (second.restart_step, rows([second])) == (3, [("loss", 3, 9.0)])
    assert first.end == second.begin


def test_what_is_no_plain_file_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret.tfevents"
    secret.write_bytes(VERSION + scalars(0, {"secret": 1.0}))
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / NAME).symlink_to(secret)
    (logs / "linked").symlink_to(tmp_path)
    os.mkfifo(logs / "pipe.tfevents")
    (logs / "directory.tfevents").mkdir()
    found = read(logs)
    assert found.pieces == []
    assert any("links are not followed" in text for text in found.notes)
    outside = tmp_path / "outside"
    outside.symlink_to(logs)
    assert read(outside).pieces == []


def test_too_many_files_too_deep_directories_and_odd_names_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 3)
    for index in range(5):
        (tmp_path / f"{index}.tfevents").write_bytes(VERSION)
    found = read(tmp_path)
    assert len(found.pieces) == 3
    assert any("too many files" in text for text in found.notes)
    deep = tmp_path / "deep" / "/".join("abcdefghijkl")
    deep.mkdir(parents=True)
    (deep / NAME).write_bytes(VERSION)
    assert any("directories deep" in text for text in read(tmp_path / "deep").notes)
    odd = tmp_path / "odd"
    odd.mkdir()
    Path(os.fsdecode(os.fsencode(odd) + b"/\xff.tfevents")).write_bytes(VERSION)
    assert any("no UTF-8" in text for text in read(odd).notes)


def test_a_missing_directory_has_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere") == Found()


def test_names_that_can_t_be_kept_are_counted_or_mended(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(VERSION + scalars(0, {"x" * 300: 1.0, "a\nb\0c": 2.0}))
    found = read(tmp_path)
    assert found.pieces[0].long_names == 1
    assert rows(found.pieces) == [("a\ufffdb\ufffdc", 0, 2.0)]


def test_a_reading_is_bounded_and_goes_on(tmp_path: Path) -> None:
    content = VERSION + b"".join(scalars(step, {"loss": float(step)}) for step in range(20_000))
    (tmp_path / NAME).write_bytes(content)
    places: dict[str, Place] = {}
    seen: list[int] = []
    while True:
        found = read_new(str(tmp_path), places, 1 << 18, 1000)
        seen += [step for _, step, _ in rows(found.pieces)]
        places.update(places_after(found))
        if not found.has_more:
            break
        assert len(found.pieces[0].points) < 8000
    assert seen == list(range(20_000))


def test_records_too_long_to_hold_scalars_are_stepped_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 1 << 16)
    monkeypatch.setattr(reading, "_LONGEST", (1 << 16) + 16)
    image = record(bytes_field(5, bytes_field(1, bytes_field(1, b"image") + bytes_field(4, bytes(3 << 20)))))
    path = tmp_path / NAME
    path.write_bytes(VERSION + image[:-1])
    found = read(tmp_path)
    assert found.pieces[0].end == len(VERSION)
    path.write_bytes(VERSION + image + scalars(7, {"loss": 1.0}))
    assert rows(read(tmp_path, places_after(found)).pieces) == [("loss", 7, 1.0)]


@pytest.mark.parametrize(
    ("data_type", "content", "value"),
    [
        (1, bytes_field(4, struct.pack("<f", 0.5)), 0.5),
        (1, b"\x2d" + struct.pack("<f", 0.5), 0.5),
        (1, bytes_field(5, struct.pack("<f", 0.5)), 0.5),
        (2, bytes_field(4, struct.pack("<d", 1 / 3)), 1 / 3),
        (2, bytes_field(6, struct.pack("<d", 1 / 3)), 1 / 3),
        (3, bytes_field(7, varint(-5)), -5.0),
        (9, bytes_field(10, varint(-(2**40))), -(2.0**40)),
        (9, bytes_field(4, struct.pack("<q", -7)), -7.0),
        (19, bytes_field(13, varint(0x3800)), 0.5),
        (14, bytes_field(13, varint(0x3F00)), 0.5),
        (1, b"", 0.0),
        (1, bytes_field(2, b"") + bytes_field(4, struct.pack("<f", 0.5)), 0.5),
        (1, bytes_field(2, bytes_field(2, b"\x08\x01")) + bytes_field(4, struct.pack("<f", 0.5)), 0.5),
    ],
)
def test_tensors_of_one_number_in_every_form(data_type: int, content: bytes, value: float) -> None:
    assert read_event(event(3, 1.5, tensor("t", data_type, content))).scalars == [("t", value)]


def test_tensors_that_are_no_scalars_are_left(tmp_path: Path) -> None:
    vector = bytes_field(2, bytes_field(2, b"\x08\x02")) + bytes_field(4, struct.pack("<2f", 1, 2))
    text = bytes_field(8, b"words")
    values = (tensor("v", 1, vector), tensor("s", 7, text), tensor("h", 1, bytes_field(4, b"\0" * 4), "histograms"))
    assert read_event(event(0, 1.0, *values)).scalars == []
    bare = tensor("bare", 1, bytes_field(4, struct.pack("<f", 2.0)), plugin=None)
    assert read_event(event(0, 1.0, bare)).scalars == [("bare", 2.0)]


def test_odd_numbers_steps_and_times_survive(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(
        scalars(-3, {"loss": math.nan}, time=math.nan)
        + scalars(0, {"loss": math.inf}, time=-1.0)
        + record(event(2**63 - 1, 1.0, simple("far", 1.0)))
    )
    (piece,) = read(tmp_path).pieces
    assert piece.points.steps.tolist() == [-3, 0]
    assert math.isnan(piece.points.values[0]) and piece.points.values[1] == math.inf
    assert all(time > 1_600_000_000_000_000 for time in piece.points.times)


@given(st.binary(max_size=300))
@settings(max_examples=500, deadline=None)
def test_no_bytes_at_all_do_more_than_be_refused(content: bytes) -> None:
    with contextlib.suppress(NotAnEvent):
        read_event(content)
    records.split(content)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=20))
@settings(max_examples=200, deadline=None)
def test_broken_events_inside_sound_records_are_only_counted(at: int, splinter: bytes) -> None:
    content = bytearray(event(1, 1.0, simple("loss", 1.0), tensor("t", 1, bytes_field(4, b"\0\0\0\0"))))
    at %= len(content)
    content[at : at + len(splinter)] = splinter
    split = records.split(record(bytes(content)))
    assert len(split.contents) == 1
    with contextlib.suppress(NotAnEvent):
        read_event(split.contents[0][0])


async def test_the_process_answers_as_the_function_does_and_starts_again(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / NAME).write_bytes(VERSION + scalars(0, {"loss": 1.0}) + scalars(1, {"ä": math.nan}))
    process = ReadingProcess()
    try:
        found = await process.read_new(str(tmp_path), {}, 1 << 20, 100)
        assert rows(found.pieces)[0] == ("train/loss", 0, 1.0)
        assert found.pieces[0] == read(tmp_path).pieces[0] or math.isnan(found.pieces[0].points.values[1])
        assert (await process.read_new(str(tmp_path), places_after(found), 1 << 20, 100)).pieces == []
        assert process.pid is not None
        os.kill(process.pid, 9)
        with pytest.raises(ReadingFailed):
            for _ in range(100):
                await process.read_new(str(tmp_path), {}, 1 << 20, 100)
        assert rows((await process.read_new(str(tmp_path), {}, 1 << 20, 100)).pieces)[0] == ("train/loss", 0, 1.0)
    finally:
        await process.close()


async def test_the_process_keeps_no_right_but_reading(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    path = tmp_path / NAME
    path.write_bytes(VERSION + scalars(0, {"loss": 1.0}))
    path.chmod(0o600)
    process = ReadingProcess()
    try:
        assert rows((await process.read_new(str(tmp_path), {}, 1 << 20, 100)).pieces) == [("loss", 0, 1.0)]
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if ":" in line
        )
        if os.geteuid() == 0:  # nobody else has rights to give up
            assert status["Uid"].split() == ["65534"] * 4
            assert status["NoNewPrivs"].strip() == "1"
        assert int(status["CapEff"], 16) in (0, 1 << 2)
    finally:
        await process.close()
