"""`python -m modelyard` is the command `modelyard`."""

from modelyard.cli.main import main

main()
