"""`python -m modelyard.notebook PLAN.json`: carry out a plan; ends when it is told to."""

from __future__ import annotations

import sys

from modelyard.notebook.session import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
