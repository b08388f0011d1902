"""The program behind every instance: `python -I -S supervise.py <instance directory>`.

A file of its own, because a script is compiled anew at each start while what it imports is not.
"""

import sys

if __name__ == "__main__":
    # The platform's package is found beside the standard library, never before it, and no site configuration is read.
    sys.path.append(__file__.rpartition("/modelyard/")[0])
    from modelyard.compute.backends.local.supervisor import main

    sys.exit(main(sys.argv[1]))
