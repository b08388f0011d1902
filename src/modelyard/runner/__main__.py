"""`python -I -S …/modelyard/runner/__main__.py PLAN.json`: carry out a plan; the exit code is the script's, or one of `outcomes`.

It is started as a file, without site packages: what runs modules (`-m`), and what an image has for scripts alone, start-up code of its own
among it, would take as long as the runner.
"""

import os
import sys

if __name__ == "__main__":
    # The library is found beside the standard library, never before it.
    sys.path.append(__file__.rpartition("/modelyard/")[0])
    from modelyard.runner.session import main

    code = main(sys.argv)
    sys.stdout.flush()
    # Threads that are stuck in a network call are not waited for.
    os._exit(code)
