"""What is wrong, in one line for whoever typed the command."""

from __future__ import annotations


class Problem(Exception):
    """The command can't be done; the sentence says why and what to do."""
