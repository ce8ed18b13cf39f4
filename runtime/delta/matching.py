"""Which old tensor a new one has most likely come from.

By name where there is one, and by content: exporters rename, reorder and convert. Some elements of
each tensor are ranked, and tensors of as many elements are compared by the correlation of the ranks
(Spearman's), which a change of number format leaves as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.delta.elements import elements, ranks
from runtime.delta.ranges import Range

NUM_SAMPLES: Final = 256
# What the same name and the same kind are worth beside a correlation, which is 1 at best.
NAME_WORTH, KIND_WORTH = 0.3, 0.2
# Correlations of this many samples that are by chance stay below.
MIN_LIKENESS: Final = 0.3


def match(
    old: bytes, new: bytes, old_ranges: Sequence[Range], new_ranges: Sequence[Range]
) -> dict[Range, Range]:
    """The old tensor for each new one that has a likely one."""
    groups: dict[int, list[Range]] = defaultdict(list)
    for one in old_ranges:
        groups[one.num_elements].append(one)
    samples = {size: _samples(old, group) for size, group in groups.items()}
    by_name = {(one.name, one.kind): one for one in reversed(old_ranges) if one.name}
    found = {}
    for one in new_ranges:
        likely = None
        if one.num_elements in groups:
            group = groups[one.num_elements]
            likely = _likely(one, group, samples[one.num_elements] @ _samples(new, [one])[0])
        likely = likely or by_name.get((one.name, one.kind))
        if likely is not None:
            found[one] = likely
    return found


def _samples(file: bytes, group: Sequence[Range]) -> npt.NDArray[np.float32]:
    rows = []
    for one in group:
        values = elements(memoryview(file)[one.start : one.end], one.kind)
        places = np.linspace(0, len(values) - 1, min(NUM_SAMPLES, len(values))).astype(np.intp)
        rows.append(ranks(values[places], one.kind))
    return np.stack(rows)


def _likely(one: Range, group: Sequence[Range], likeness: npt.NDArray[np.float32]) -> Range | None:
    same_name = np.array([_is_same_name(one.name, other.name) for other in group])
    same_kind = np.array([other.kind == one.kind for other in group])
    worth = likeness + NAME_WORTH * same_name + KIND_WORTH * same_kind
    best = int(np.argmax(worth))
    # A name alone is enough, and so is the same content; the same size alone is not.
    is_likely = same_name[best] or likeness[best] >= MIN_LIKENESS
    return group[best] if is_likely else None


def _is_same_name(name: str, other: str) -> bool:
    return bool(name) and name == other
