"""What a reply says with its ``result``, where its tensors have to agree with it.

An output without elements is no answer, with one exception: a detector that found nothing. It says
so in words, ``{"boxes": []}``, and its tensors have as many boxes; what says one thing in words and
another in tensors, or nothing in words, is refused.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from runtime.errors import MalformedBodyError
from runtime.messages import Tensors
from runtime.task_fields import MAX_BOXES

MAX_RESULT = 1 << 20
# Axes of boxes, and of scores for each label: a picture, its boxes, their numbers.
_OF_BOXES = 3
_KEY = '"boxes"'


class _Box(msgspec.Struct):
    label: Annotated[str, msgspec.Meta(max_length=1024)]
    score: Annotated[float, msgspec.Meta(ge=0, le=1)]
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if right < left or bottom < top:
            raise ValueError("a box has its corners the wrong way round")


class _Found(msgspec.Struct):
    boxes: Annotated[list[_Box], msgspec.Meta(max_length=MAX_BOXES)] | msgspec.UnsetType = (
        msgspec.UNSET
    )


_decode = msgspec.json.Decoder(_Found).decode


def parse_result(value: object) -> str:
    """Passed on as it is, within its limit: half of a JSON text is none."""
    return value if isinstance(value, str) and len(value) <= MAX_RESULT else ""


def check_answer(outputs: Tensors, tier: object, result: str) -> None:
    """Empty and NaN are no answer, whatever the reply says about itself.

    Raises:
        MalformedBodyError: nobody has answered, with nothing, or what ``check_boxes`` refuses.
    """
    if tier is None or not outputs:
        raise MalformedBodyError("the reply says that it answers, and holds no answer")
    for name, array in outputs.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise MalformedBodyError(f"the output {name[:40]!r} of the reply is NaN")
    check_boxes(result, outputs)


def check_boxes(result: str, outputs: Tensors) -> None:
    """Refuses outputs without elements, but for those of a detector that says it found nothing.

    Raises:
        MalformedBodyError: an output is empty and ``result`` does not say that there are no boxes,
            or ``result`` has boxes that are none, or not as many as the outputs.
    """
    num_boxes = _num_boxes(result)
    for name, array in outputs.items():
        if array.size == 0 and (num_boxes != 0 or array.shape[:2] != (1, 0)):
            raise MalformedBodyError(
                f"the output {name[:40]!r} of the reply is empty, and its result does not say that "
                "nothing was found"
            )
        if num_boxes is not None and array.ndim == _OF_BOXES and array.shape[:2] != (1, num_boxes):
            raise MalformedBodyError(
                f"the result of the reply has {num_boxes} boxes, and its output {name[:40]!r} the "
                f"shape {list(array.shape)}"
            )


def _num_boxes(result: str) -> int | None:
    """How many boxes a result names; None where it is of another task, or there is none."""
    if _KEY not in result:
        return None
    try:
        found = _decode(result)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise MalformedBodyError(f"the result of the reply has no boxes: {error}") from None
    return None if found.boxes is msgspec.UNSET else len(found.boxes)
