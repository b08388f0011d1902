"""The scripts in an environment's `bin`, made to work wherever the environment is seen.

uv writes them so in a relocatable environment; pip writes the absolute path of the interpreter that it ran on, which is the
half-built directory's and gone after the rename (behind `/bin/sh` where the path is too long for a `#!` line).
"""

from __future__ import annotations

import re
from pathlib import Path

_TRAMPOLINE = b"""#!/bin/sh
'''exec' "$(dirname -- "$(realpath -- "$0")")"/'python' "$0" "$@"
' '''
"""


def make_scripts_relocatable(environment: Path) -> int:
    """Rewrite the scripts that name an interpreter of this environment by its path; answers how many there were."""
    own = re.escape(str(environment / "bin").encode())
    head = re.compile(rb"#!" + own + rb"/[^\n]*\n|#!/bin/sh\n'''exec' \"?" + own + rb"/[^\n]*\n' '''\n")
    count = 0
    for script in sorted((environment / "bin").iterdir()):
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        found = head.match(content)
        if found:
            script.write_bytes(_TRAMPOLINE + content[found.end() :])
            count += 1
    return count
