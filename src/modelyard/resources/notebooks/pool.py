"""Which notebooks to keep ready. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class ShapeKey(NamedTuple):
    """A shape of notebooks of one project."""

    project_id: str
    shape: str


class Change(NamedTuple):
    """What lacks, one for each, and the ids of spares of which there are too many."""

    missing: tuple[ShapeKey, ...]
    surplus: tuple[str, ...]


def compare(used: Sequence[ShapeKey], count: int, spares: Mapping[str, ShapeKey]) -> Change:
    """What has to come and to go so that `count` spares are there: one of each shape in turn, the one that was used last first."""
    wanted = Counter(used[place % len(used)] for place in range(count)) if used else Counter[ShapeKey]()
    surplus: list[str] = []
    for spare_id, key in spares.items():
        if wanted[key] > 0:
            wanted[key] -= 1
        else:
            surplus.append(spare_id)
    return Change(tuple(_in_order(wanted.elements(), used)), tuple(surplus))


def _in_order(keys: Iterable[ShapeKey], used: Sequence[ShapeKey]) -> list[ShapeKey]:
    return sorted(keys, key=used.index)
