"""Small files that travel together: a request for each of them costs more than its content."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeVar

    _Item = TypeVar("_Item")


SMALL_BYTES = 1 << 18
"""What is larger travels by itself."""
COUNT = 100
"""How many travel together at most; a store that takes fewer at once gets each by itself."""
TOGETHER_BYTES = 4 << 20


def batches(
    items: Iterable[_Item], key: Callable[[_Item], object], size: Callable[[_Item], int]
) -> Iterator[Sequence[_Item]]:
    """Items as they travel, in their order: small ones with the same `key` together, those without a key (None) by themselves.

    Args:
        size: bytes of an item.
    """
    batch: list[_Item] = []
    of, total = None, 0
    for item in items:
        found = key(item)
        if found is None or size(item) > SMALL_BYTES:
            yield (item,)
            continue
        if batch and (found is not of or len(batch) >= COUNT or total + size(item) > TOGETHER_BYTES):
            yield batch
            batch, total = [], 0
        of = found
        batch.append(item)
        total += size(item)
    if batch:
        yield batch
