"""What a single tier alone says about the same pictures, in batches, outside the timed window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from runtime.adapters.clock import SystemClock
from runtime.common_settings import ModelSettings
from runtime.deadline import MAX_BUDGET_MS, Deadline
from runtime.exchange.loading import load_model
from runtime.messages import Tier
from tierwise.demo.traffic import Question

BATCH = 100


async def labels_of(
    tier: Tier, questions: Sequence[Question], progress: Callable[[int], None]
) -> dict[int, int]:
    """The tier's own label of each picture, by index; ``progress`` hears of each batch's size."""
    clock = SystemClock()
    model = await load_model(ModelSettings(), tier, clock)
    labels: dict[int, int] = {}
    try:
        for start in range(0, len(questions), BATCH):
            batch = questions[start : start + BATCH]
            pictures = np.stack([question.picture for question in batch])
            pixels = pictures.astype(np.float32) / np.float32(255)
            deadline = Deadline.after(clock.monotonic_s(), MAX_BUDGET_MS)
            result = await model.infer({"image": pixels}, deadline)
            chosen = result.outputs[model.manifest.outputs[0].name].argmax(axis=1)
            labels.update(
                (question.index, int(label)) for question, label in zip(batch, chosen, strict=True)
            )
            progress(len(batch))
    finally:
        model.close()
    return labels
