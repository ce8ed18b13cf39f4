"""What a mirror gives up to make room: the least recently used, never what is needed.

Rules of this file:
  * nothing is given up where that would not be enough: then there is no room, and all stays;
  * no more is given up than it takes.
"""

from __future__ import annotations

from collections.abc import Container, Mapping


def to_evict(
    sizes: Mapping[str, int], *, keep: Container[str], excess_bytes: int
) -> tuple[str, ...] | None:
    """What to delete so that at least ``excess_bytes`` are freed; None where that cannot be.

    Args:
        sizes: bytes of each file that is there, the least recently used first.
        keep: what is pinned, in use, or still arriving.
        excess_bytes: what is too much; nothing is deleted where it is not above 0.
    """
    gone: list[str] = []
    freed = 0
    for name, size in sizes.items():
        if freed >= excess_bytes:
            break
        if name not in keep:
            gone.append(name)
            freed += size
    return tuple(gone) if freed >= excess_bytes else None
