"""The searchable log of a run has each of its lines once and in order, whatever it prints and whoever is killed meanwhile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from journey_platform import MakePlatform, RunningPlatform, eventually
from journey_scripts import finish, start_script, upload_script

pytestmark = pytest.mark.slow

LINE_COUNT = 40_000
LONG_LINE_BYTES = 100_000_000
SHIP_SECONDS = 120.0

NUMBERED = f"""
    import sys, time
    for number in range({LINE_COUNT}):
        print("line", number, "of a run that prints a lot")
        if number % 5000 == 0:
            time.sleep(0.3)
    print("that was all")
"""

STRANGE = f"""
    import os, sys
    for percent in range(101):
        print(f"\\rloading {{percent}}%", end="", flush=True)
    print()
    os.write(1, bytes(range(128, 256)) + b"\\n")
    block = b"z" * 1_000_000
    for _ in range({LONG_LINE_BYTES} // len(block)):
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(1, rest):]
    print()
    print("that was all")
"""


def lines_of(platform: RunningPlatform, training_id: str) -> list[dict]:
    """All lines of a training once the last one is there, oldest first."""
    wanted = f'trainingId:"{training_id}"'
    search = platform.client.logs.search
    eventually(
        lambda: search(f'{wanted} AND "that was all"').total_count and search(f'{wanted} AND "done"').total_count,
        "the last line is in the log store",
        SHIP_SECONDS,
        0.5,
    )
    return list(platform.client.logs.iterate(wanted, order="asc"))


def test_no_line_is_lost_or_repeated_over_kills_of_the_server(make_platform: MakePlatform, tmp_path: Path) -> None:
    platform = make_platform()
    upload_script(platform, tmp_path / "source", "lines/source", NUMBERED)
    training = start_script(platform, "numbered", "lines/source", use_log=True)
    for share in (10, 3):
        eventually(
            lambda share=share: (
                platform.is_serving()
                and platform.client.logs.search(f'trainingId:"{training.id}"').total_count > LINE_COUNT // share
            ),
            "a part of the lines is there",
            SHIP_SECONDS,
        )
        platform.kill_server()
        platform.wait_until_serving()
    finish(platform, training)
    lines = lines_of(platform, training.id)
    numbers = [int(found[1]) for line in lines if (found := re.match(r"line (\d+) of a run", line["body"]))]
    assert numbers == list(range(LINE_COUNT))
    assert {(line["instanceIndex"], line["attempt"]) for line in lines} == {("0", "0")}


def test_strange_output_survives_and_does_not_fill_the_memory(platform: RunningPlatform, tmp_path: Path) -> None:
    upload_script(platform, tmp_path / "source", "strange/source", STRANGE)
    pid = platform.server_pid()
    before = peak_bytes(pid)
    training = finish(platform, start_script(platform, "strange", "strange/source", use_log=True))
    bodies = [line["body"] for line in lines_of(platform, training.id)]
    assert [body for body in bodies if "loading" in body] == ["loading 100%"]
    assert "�" * 128 in bodies
    pieces = [body for body in bodies if set(body) == {"z"}]
    assert len("".join(pieces)) == 1 << 20
    assert any("its rest is left out here" in body for body in bodies)
    assert bodies.index("that was all") > bodies.index(pieces[-1])
    assert peak_bytes(pid) - before < 150_000_000


def peak_bytes(pid: int) -> int:
    """The most memory that a process has ever had."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) * 1024
