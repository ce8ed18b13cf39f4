"""Byte ranges of HTTP (RFC 9110, 14), as much of them as a resumed download needs.

Rules of this file:
  * one range, or the whole file: what is not understood is ignored, as the RFC allows, and several
    ranges are not understood;
  * a range that the file does not have is told from one that is not understood;
  * a reply's range is believed only where all of it adds up.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# More digits are no file's length; int() of very long texts costs time.
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", re.ASCII)


class Span(NamedTuple):
    """Bytes from ``start`` up to, and without, ``end``."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many they are."""
        return self.end - self.start


def parse_range(header: str | None, size_bytes: int) -> Span | None:
    """What a ``Range`` header asks of a file of that size; None: all of it.

    Raises:
        ValueError: the file has no such bytes (status 416).
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        span = Span(max(0, size_bytes - int(last)), size_bytes)
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        end = min(size_bytes, int(last) + 1) if last else size_bytes
        span = Span(start, end)
    if span.length <= 0:
        raise ValueError(f"there are no such bytes in {size_bytes}")
    return span


def content_range(span: Span, size_bytes: int) -> str:
    """The ``Content-Range`` of a reply with that part."""
    return f"bytes {span.start}-{span.end - 1}/{size_bytes}"


def is_content_range(header: str | None, span: Span, size_bytes: int) -> bool:
    """Whether a reply says that it is that part of a file of that size."""
    match = _CONTENT_RANGE.fullmatch((header or "").strip())
    if match is None:
        return False
    first, last, total = map(int, match.groups())
    return (first, last + 1, total) == (span.start, span.end, size_bytes)


def matches(header: str | None, digest: str) -> bool:
    """Whether an ``If-Match`` or ``If-None-Match`` names the file with that digest as its tag."""
    tags = [tag.strip() for tag in (header or "").split(",")]
    return "*" in tags or f'"{digest}"' in tags
