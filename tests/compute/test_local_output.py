"""Output on disk: whole, in order, in any shape and size, with offsets that stay valid."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from modelyard.compute.backends.local.output import Recorder, open_pipe, output_end, read_output, segment_starts
from modelyard.compute.port import Phase


def _record(directory: Path, content: bytes, segment_bytes: int, segment_count: int) -> Recorder:
    directory.mkdir(exist_ok=True)
    recorder = Recorder(str(directory), segment_bytes, segment_count)
    read_end, write_end = open_pipe()

    def write() -> None:
        view = memoryview(content)
        while view:
            view = view[os.write(write_end, view) :]
        os.close(write_end)

    writer = threading.Thread(target=write)
    writer.start()
    while recorder.take(read_end):
        pass
    writer.join()
    os.close(read_end)
    recorder.close()
    return recorder


def test_rotation_keeps_offsets(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    recorder = _record(tmp_path / "logs", content, 1000, 3)
    directory = str(tmp_path / "logs")
    assert recorder.end == output_end(directory) == len(content)
    starts = segment_starts(directory)
    assert starts == [8000, 9000, 10000]
    assert read_output(directory, 0, 1 << 20) == (8000, content[8000:])
    assert read_output(directory, 9990, 20) == (9990, content[9990:10010])
    assert read_output(directory, len(content), 20) == (len(content), b"")
    assert read_output(directory, len(content) + 5, 20) == (len(content) + 5, b"")
    assert read_output(directory, -5, 3) == (8000, content[8000:8003])


def test_file_systems_without_splice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "splice", refuse)
    content = os.urandom(3_000_000)
    _record(tmp_path / "logs", content, 1 << 20, 5)
    assert read_output(str(tmp_path / "logs"), 0, 1 << 23) == (0, content)


def test_reading_piece_by_piece_gives_all(tmp_path: Path) -> None:
    content = os.urandom(100_000)
    _record(tmp_path / "logs", content, 7_000, 50)
    collected, offset = b"", 0
    while True:
        first, data = read_output(str(tmp_path / "logs"), offset, 3_333)
        assert first == offset
        if not data:
            break
        collected += data
        offset = first + len(data)
    assert collected == content


def test_nothing_was_printed(tmp_path: Path) -> None:
    assert read_output(str(tmp_path / "none"), 0, 10) == (0, b"")
    assert output_end(str(tmp_path / "none")) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can only be mounted by root")
def test_a_full_disk_loses_output_and_nothing_else(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)], check=True)
    try:
        recorder = _record(small / "logs", b"x" * 1_000_000, 1 << 20, 2)
        assert recorder.lost_bytes > 0
        assert recorder.end + recorder.lost_bytes == 1_000_000
        assert read_output(str(small / "logs"), 0, 1 << 20) == (0, b"x" * recorder.end)
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_binary_output_is_kept_as_it_is(world: Any) -> None:
    code = "import os; os.write(1, bytes(range(256)) * 4); os.write(2, b'\\0\\xff')"
    instance = world.python(code)
    await world.compute.launch(instance)
    await world.until(instance.id, Phase.EXITED)
    chunk = await world.compute.read_logs(instance.id, 0, 1 << 20)
    assert chunk.data == bytes(range(256)) * 4 + b"\0\xff"
    assert chunk.is_end


async def test_output_without_a_last_newline_and_from_a_dying_process(world: Any) -> None:
    _, printed = await world.run("printf 'no newline'; kill -9 $$")
    assert printed == "no newline"


async def test_following_while_it_runs(world: Any) -> None:
    instance = world.instance("for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done")
    await world.compute.launch(instance)
    collected, offset = b"", 0
    while True:
        chunk = await world.compute.read_logs(instance.id, offset, 1 << 16)
        assert chunk.offset == offset
        collected += chunk.data
        offset = chunk.next_offset
        if chunk.is_end:
            break
    assert collected == b"".join(b"line %d\n" % number for number in range(1, 6))


@pytest.mark.slow
async def test_a_hundred_megabytes_in_one_line(make_world: Any) -> None:
    world = make_world(output_segment_bytes=8 << 20, output_segment_count=4)
    code = "import sys; w = sys.stdout.buffer.write\nfor _ in range(100): w(b'x' * (1 << 20))\nw(b'END')"
    instance = world.python(code)
    await world.compute.launch(instance)
    seen = await world.until(instance.id, Phase.EXITED)
    assert seen.exit.code == 0
    chunk = await world.compute.read_logs(instance.id, 0, 1 << 27)
    assert chunk.offset == 72 << 20
    assert chunk.next_offset == (100 << 20) + 3
    assert chunk.data == b"x" * (28 << 20) + b"END"
    assert chunk.is_end
