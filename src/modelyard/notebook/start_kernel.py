"""Starts a kernel in whatever environment it is run by: `python start_kernel.py IMAGE -f CONNECTION_FILE`.

An environment without ipykernel borrows the image's where both have the same version of Python, so that a plain `conda create` or
`uv venv` is enough. Its syntax stays valid on old Pythons, since users choose theirs.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec


def main() -> None:
    """Become the kernel."""
    image = sys.argv.pop(1)
    try:  # where memory runs out, a kernel ends before the server that tells its page of it
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write("700")
    except OSError:
        pass
    sys.path[0] = ""  # the notebook's directory, as ipykernel's own launcher has it; not the one of this file
    if find_spec("ipykernel") is None:
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        packages = os.path.join(image, "lib", version, "site-packages")
        if not os.path.isdir(packages):
            sys.exit(
                f"This environment has no ipykernel. Install it in a terminal: {sys.executable} -m pip install ipykernel"
            )
        sys.path.append(packages)
    import_module("ipykernel.kernelapp").launch_new_instance()


if __name__ == "__main__":
    main()
