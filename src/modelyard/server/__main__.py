"""`python -m modelyard.server`: the server process, loaded with the garbage collector at rest.

Modules, models, mapped tables and routes come by the hundred thousand objects and stay until the process ends; to look through them for
garbage again and again while they are made took a quarter of every start. `process.py` wakes the collector once the server serves.
"""

from __future__ import annotations

import gc

if __name__ == "__main__":
    gc.disable()
    from modelyard.server.process import main

    main()
