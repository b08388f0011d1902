"""The upload of a whole directory after the user's process has ended."""

from __future__ import annotations

import time

from modelyard.runner.crew import work_through
from modelyard.runner.figures import format_bytes, format_count, format_rate
from modelyard.runner.journal import Journal
from modelyard.runner.outcomes import UPLOAD_FAILED, Damaged, StepFailed
from modelyard.runner.stop import Stop
from modelyard.runner.tally import Tally
from modelyard.runner.tree import LocalFile, look, scan
from modelyard.runner.upload import Destination

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def upload_output(destination: Destination, journal: Journal, stop: Stop) -> str:
    """Keep all that is in the upload's source; a line of figures. Raises `StepFailed`, before anything is sent where a name can't be kept."""
    upload = destination.upload
    begun = time.monotonic()
    found = scan(upload.source)
    for reason in found.skipped:
        journal.warn(f"{upload.source}: {reason}; it is not uploaded")
    if found.unstorable:
        raise StepFailed(
            f"The output can't be uploaded to {upload.label}: {'; '.join(found.unstorable[:5])}.", UPLOAD_FAILED
        )
    if not found.files and not found.empty_directories:
        journal.warn(f"{upload.source} is empty: there is nothing to upload to {upload.label}")
        return "nothing to upload"
    total = sum(file.size for file in found.files)
    journal.say(f"uploading to {upload.label}: {format_count(len(found.files), 'file')}, {format_bytes(total)}")
    tally = Tally(len(found.files), total)

    def tick() -> None:
        journal.advance(f"uploading: {tally.so_far()}", tally.fraction)

    there = destination.known_checksums(stop)

    def send(batch: Sequence[LocalFile], cancel: Stop) -> None:
        together = destination.store_together(batch, there, cancel)
        for file in batch:
            if file.name in together:
                tally.add_bytes(file.size)
            else:
                store_file(destination, file, cancel, tally, there.get(file.name, ""))
            tally.add_file()

    work_through(destination.batches(found.files), send, stop, tick)
    work_through(found.empty_directories, destination.mark_directory, stop)
    seconds = time.monotonic() - begun
    figures = f"{format_count(len(found.files), 'file')}, {format_bytes(total)} in {seconds:.1f} s{format_rate(total, seconds)}"
    journal.say(f"uploaded {figures}")
    return figures


def store_file(
    destination: Destination,
    file: LocalFile,
    stop: Stop,
    tally: Tally,
    known_checksum: str = "",
    *,
    waits_below: str = "",
    may_follow: bool = True,
) -> tuple[LocalFile, str]:
    """Keep one file; the file as it was kept, and its checksum. `may_follow`: once more when it has changed meanwhile."""
    try:
        return file, destination.store(file, stop, tally.add_bytes, known_checksum, waits_below)
    except Damaged:
        again = look(file.name, file.path)
        if not may_follow or again is None or again.mark == file.mark:
            raise
        return again, destination.store(again, stop, tally.add_bytes, known_checksum, waits_below)
