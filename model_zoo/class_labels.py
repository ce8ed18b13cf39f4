"""Labels as people write them, as the indices that a model's classes have."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from runtime.errors import PolicyError

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]


def as_indices(labels: Array, names: Sequence[str], source: str) -> Ints:
    """(n,) class indices; texts are looked up among the names of the classes.

    Raises:
        PolicyError: a label is none of them.
    """
    if labels.dtype.kind in "US":
        places = {name: place for place, name in enumerate(names)}
        texts = [
            text.decode() if isinstance(text, bytes) else str(text) for text in labels.tolist()
        ]
        unknown = sorted(set(texts) - places.keys())
        if unknown:
            raise PolicyError(
                f"{source}: {unknown[:5]} are labels there, but no classes of the model: "
                f"{list(names)[:10]}"
            )
        return np.asarray([places[text] for text in texts], np.int64)
    found = labels.astype(np.int64)
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < len(names):
        shifted = " (they seem to count from 1: subtract 1)" if found.min() == 1 else ""
        raise PolicyError(
            f"{source}: labels go from {found.min()} to {found.max()}, and the model has "
            f"{len(names)} classes, 0 to {len(names) - 1}{shifted}"
        )
    return found


def texts_of(labels: Array) -> list[str]:
    """Labels that are texts, as texts; bytes are UTF-8."""
    return [
        text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        for text in labels.tolist()
    ]
