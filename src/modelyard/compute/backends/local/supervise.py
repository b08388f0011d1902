"""The program that becomes the supervisor of every instance (see `starter`): `python -I -S supervise.py`.

A file of its own, because a script is compiled anew at each start while what it imports is not.
"""

import sys

if __name__ == "__main__":
    # The platform's package is found beside the standard library, never before it, and no site configuration is read.
    sys.path.append(__file__.rpartition("/modelyard/")[0])
    from modelyard.compute.backends.local.starter import serve

    sys.exit(serve())
