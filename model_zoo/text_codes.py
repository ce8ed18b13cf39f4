"""Texts as the whole numbers that models of the kind ``text`` take: one function for all callers.

Nothing of this can be in an ONNX file, so whoever asks any tier calls ``codes_of``; what comes
after it, n-grams and their hashing, is in the file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

DEFAULT_LENGTH = 48


def codes_of(texts: Sequence[str], length: int = DEFAULT_LENGTH) -> npt.NDArray[np.int32]:
    """``(n, length)`` code points, 0 behind the end; what is longer is cut.

    In Unicode's form NFC and lower case, with one space for any white space, one in front of the
    first word and, where there is room, one behind the last, so that n-grams know where words end.
    The zero character is left out; a text of nothing else is all 0.

    Raises:
        ValueError: ``length`` is not positive.
    """
    if length < 1:
        raise ValueError(f"a text needs room for a character, not {length}")
    codes = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        words = unicodedata.normalize("NFC", text.replace("\0", "")).lower().split()
        if words:
            found = [ord(character) for character in f" {' '.join(words)} "[:length]]
            codes[row, : len(found)] = found
    return codes
