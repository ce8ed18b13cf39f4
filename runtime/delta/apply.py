"""Makes the new file from the old one and a delta that nobody vouches for.

Rules of this file:
  * what is trusted is the digest and the size that the caller gives, from a signed manifest;
  * no more is made than that size; how long a segment is, is known before it is decompressed, and
    how much of the old file is read for dictionaries has a limit;
  * the file that comes out has the digest, or it does not come out.
"""

from __future__ import annotations

import hashlib
import io
from typing import Final

from runtime.delta import elements
from runtime.delta.payload import unpack, unpack_against
from runtime.delta.recipe import decode, decode_header
from runtime.delta.segments import (
    Against,
    Copy,
    Plain,
    Pool,
    Pooled,
    Ranked,
    Recipe,
    Residual,
    Segment,
)
from runtime.delta.varint import Reader
from runtime.errors import DeltaError

BEYOND: Final = "the delta reads too much of the old file; fetch the full file"


def apply_delta(old: bytes, delta: bytes, *, sha256: str, size_bytes: int) -> bytes:
    """The new file of ``size_bytes`` whose digest is ``sha256`` (hexadecimal).

    Raises:
        DeltaError: the delta is damaged, for another file, or makes another file. Whatever it is,
            the full file helps.
    """
    header, reader = decode_header(delta)
    if header.new_digest.hex() != sha256.lower() or header.new_length != size_bytes:
        raise DeltaError("the delta makes another file; fetch the full file")
    if hashlib.sha256(old).digest() != header.old_digest:
        raise DeltaError("the delta is for another file; fetch the full file")
    new = _build(memoryview(old), decode(header, reader, len(old)))
    if hashlib.sha256(new).digest() != header.new_digest:
        raise DeltaError("the delta does not make the file it says; fetch the full file")
    return new


def _build(old: memoryview, recipe: Recipe) -> bytes:
    # What honest deltas refer to: pieces as long as what is made of them, or the old file once.
    limit = len(old) + recipe.header.new_length
    if sum(part.old_length for part in recipe.segments if isinstance(part, Against)) > limit:
        raise DeltaError(BEYOND)
    pool = Reader(_pooled(old, recipe.pool))
    new = io.BytesIO()
    for segment in recipe.segments:
        new.write(_made(old, pool, segment))
    return new.getvalue()


def _pooled(old: memoryview, pool: Pool) -> bytes:
    if not pool.length:
        return b""
    dictionary = b"".join(old[start : start + length] for start, length in pool.references)
    return unpack_against(pool.payload, dictionary, pool.length)


def _made(old: memoryview, pool: Reader, segment: Segment) -> bytes | memoryview:
    match segment:
        case Copy(length, start):
            return old[start : start + length]
        case Pooled(length):
            return pool.bytes(length)
        case Plain(length, kind, codec, payload):
            return elements.unshuffle(unpack(payload, codec, length), kind.width).tobytes()
        case Against(length, start, old_length, payload):
            return unpack_against(payload, old[start : start + old_length], length)
        case Residual():
            return _from_residual(old, segment)
        case Ranked():
            return _from_ranked(old, segment)


def _from_residual(old: memoryview, segment: Residual) -> bytes:
    kind, start = segment.kind, segment.old_start
    reference = elements.elements(old[start : start + segment.length], kind)
    data = unpack(segment.payload, segment.codec, segment.unpacked_length)
    if segment.is_sparse:
        taken = elements.unsparse(data, len(reference), kind.width)
    else:
        taken = elements.unshuffle(data, kind.width)
    order = elements.permutation(reference, kind, segment.order)
    return elements.add_difference(elements.put_back(taken, order), reference, kind).tobytes()


def _from_ranked(old: memoryview, segment: Ranked) -> bytes:
    kind, old_kind, start = segment.kind, segment.old_kind, segment.old_start
    old_length = segment.length // kind.width * old_kind.width
    reference = elements.elements(old[start : start + old_length], old_kind)
    taken = elements.unshuffle(unpack(segment.payload, segment.codec, segment.length), kind.width)
    order = elements.permutation(reference, old_kind, elements.Order.VALUE)
    return elements.put_back(elements.add_steps(taken, kind), order).tobytes()
