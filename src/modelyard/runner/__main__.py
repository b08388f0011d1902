"""`python -m modelyard.runner PLAN.json`: carry out a plan; the exit code is the script's, or one of `outcomes`."""

from __future__ import annotations

import os
import sys

from modelyard.runner.session import main

if __name__ == "__main__":
    code = main(sys.argv)
    sys.stdout.flush()
    # Threads that are stuck in a network call are not waited for.
    os._exit(code)
