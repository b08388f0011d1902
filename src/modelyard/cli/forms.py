"""The forms that data is printed in. They stand apart from the printing, so that options can name them without loading it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

Columns = Sequence[tuple[str, str]]
"""Headings with where their values stand in the resource's JSON.

`experiment.experimentName` style paths; one that leads through a list tells the value of each item, and where a value is null the path after
a `|` is taken.
"""


class Output(StrEnum):
    """How data is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
