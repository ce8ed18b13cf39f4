"""The smallest way to say one piece of a new tensor.

All transforms are tried with a fast compressor; only the best of them are compressed well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from runtime.delta import elements
from runtime.delta.elements import Order
from runtime.delta.payload import Codec, pack_against, pack_zstd, smallest
from runtime.delta.ranges import Kind
from runtime.delta.segments import Against, Plain, Ranked, Residual, Segment

TRIAL_LEVEL: Final = 3
NUM_KEPT: Final = 2
# About what an instruction takes, so that a few bytes of payload less do not decide.
INSTRUCTION_BYTES: Final = 8

# A transform's output, and the segment for it with no codec and payload yet.
Trial = tuple[bytes, Plain | Residual | Ranked]
Packed = Plain | Residual | Ranked | Against


def encode_plain(new: memoryview, kind: Kind, level: int) -> Segment:
    """A piece without a reference."""
    return _packed(_plain(new, kind), level)


def encode(
    new: memoryview, kind: Kind, *, old: memoryview, old_kind: Kind, old_start: int, level: int
) -> Segment:
    """A piece with as many old elements as it has itself, which lie at ``old_start``."""
    trials = [_plain(new, kind)]
    if kind == old_kind:
        trials += _residuals(new, old, kind, old_start)
    else:
        trials.append(_ranked(new, kind, old, old_kind, old_start))
    trials.sort(key=lambda trial: len(pack_zstd(trial[0], TRIAL_LEVEL)))
    candidates: list[Packed] = [_packed(trial, level) for trial in trials[:NUM_KEPT]]
    if kind == old_kind:
        payload = pack_against(new, old, level)
        candidates.append(Against(len(new), old_start, len(old), payload))
    return min(candidates, key=_cost)


def _cost(segment: Packed) -> int:
    """About how many bytes of a delta a segment takes."""
    return len(segment.payload) + INSTRUCTION_BYTES


def _packed(trial: Trial, level: int) -> Plain | Residual | Ranked:
    data, segment = trial
    codec, payload = smallest(data, level)
    return replace(segment, codec=codec, payload=payload)


def _plain(new: memoryview, kind: Kind) -> Trial:
    data = elements.shuffle(elements.elements(new, kind))
    return data, Plain(len(new), kind, Codec.STORED, b"")


def _residuals(new: memoryview, old: memoryview, kind: Kind, old_start: int) -> Iterator[Trial]:
    reference = elements.elements(old, kind)
    difference = elements.difference(elements.elements(new, kind), reference, kind)
    # The magnitude orders floats finely enough, and faster than the value.
    for order in (Order.FILE, Order.MAGNITUDE if kind.is_float else Order.VALUE):
        places = elements.permutation(reference, kind, order)
        taken = difference if places is None else difference[places]
        for is_sparse in (False, True):
            data = elements.sparse(taken) if is_sparse else elements.shuffle(taken)
            yield (
                data,
                Residual(
                    length=len(new),
                    kind=kind,
                    order=order,
                    is_sparse=is_sparse,
                    unpacked_length=len(data),
                    codec=Codec.STORED,
                    old_start=old_start,
                    payload=b"",
                ),
            )


def _ranked(new: memoryview, kind: Kind, old: memoryview, old_kind: Kind, old_start: int) -> Trial:
    places = elements.permutation(elements.elements(old, old_kind), old_kind, Order.VALUE)
    taken = elements.elements(new, kind)[places]
    data = elements.shuffle(elements.steps(taken, kind))
    return data, Ranked(len(new), kind, old_kind, Codec.STORED, old_start, b"")
