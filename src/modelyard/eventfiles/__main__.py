"""The reading process: answers requests on stdin until it is closed (`messages` says in which form).

It is a process of its own because parsing takes time that the server's event loop must not lose, and because the files are users': it gives
up all rights but reading before it opens the first one, and has limits that a crafted file can at most end this process with.
"""

from __future__ import annotations

import os
import resource
import sys

from modelyard.eventfiles.messages import answer_frame, failure_frame, parse_request
from modelyard.eventfiles.reading import read_new
from modelyard.eventfiles.rights import keep_only_reading

_NICENESS = 5
_MEMORY_BYTES = 2 << 30


def main() -> None:
    """Serve."""
    os.nice(_NICENESS)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    keep_only_reading()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    for line in requests:
        try:
            frame = answer_frame(read_new(*parse_request(line)))
        except (OSError, MemoryError, ValueError, TypeError) as error:
            frame = failure_frame(f"{type(error).__name__}: {error}")
        answers.write(frame)
        answers.flush()


if __name__ == "__main__":
    main()
