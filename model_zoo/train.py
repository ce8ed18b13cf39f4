"""Training and distillation of the bundled picture task (PyTorch, extra ``zoo``).

Deterministic for one seed, CPU type, PyTorch version and thread count. Mixed precision (bfloat16)
is used where the CPU has it, which is why a rebuild elsewhere agrees in accuracy and not in bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_zoo.idx import PICTURE_SIDE

Float32s = npt.NDArray[np.float32]
BATCH = 256
MAX_SHIFT = 2
ERASE_SIDE = 9
MIRROR_CHANCE = 0.5


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one network is trained.

    ``distil_weight`` is the share of the loss that follows the teacher at ``temperature``
    (Hinton et al., 2015); the rest follows the labels. ``erase_chance`` is the share of pictures of
    which a square is blanked (Zhong et al., AAAI 2020).
    """

    epochs: int
    peak_rate: float
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    erase_chance: float = 0.5
    distil_weight: float = 0.0
    temperature: float = 2.0
    average_decay: float = 0.998


Progress = Callable[[int, int, float], None]


def augment(pixels: Tensor, erase_chance: float, generator: torch.Generator) -> Tensor:
    """Mirror, shift by up to two pixels, and blank a square; all drawn from ``generator``."""
    num = pixels.shape[0]
    mirrored = torch.rand(num, 1, 1, generator=generator) < MIRROR_CHANCE
    pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    padded = functional.pad(pixels, (MAX_SHIFT,) * 4)
    offsets = torch.randint(0, 2 * MAX_SHIFT + 1, (num, 2), generator=generator)
    span = torch.arange(PICTURE_SIDE)
    rows = (offsets[:, :1] + span)[:, :, None]
    columns = (offsets[:, 1:] + span)[:, None, :]
    shifted = padded[torch.arange(num)[:, None, None], rows, columns]
    corners = torch.randint(-ERASE_SIDE + 1, PICTURE_SIDE, (num, 2), generator=generator)
    in_rows = (span >= corners[:, :1]) & (span < corners[:, :1] + ERASE_SIDE)
    in_columns = (span >= corners[:, 1:]) & (span < corners[:, 1:] + ERASE_SIDE)
    chosen = torch.rand(num, 1, 1, generator=generator) < erase_chance
    blanked = chosen & in_rows[:, :, None] & in_columns[:, None, :]
    return shifted.masked_fill(blanked, 0.0)


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16 rather than emulating it."""
    # PyTorch has no public name for it.
    return bool(torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001


def _loss(logits: Tensor, labels: Tensor, teacher: Tensor | None, recipe: Recipe) -> Tensor:
    hard = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
    if teacher is None:
        return hard
    scale = recipe.temperature
    soft = functional.kl_div(
        functional.log_softmax(logits / scale, 1),
        functional.softmax(teacher / scale, 1),
        reduction="batchmean",
    )
    return recipe.distil_weight * scale * scale * soft + (1 - recipe.distil_weight) * hard


def train(
    network: nn.Module,
    pixels: Float32s,
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    *,
    seed: int,
    teacher_logits: Float32s | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Returns the network with the running average of its weights, in evaluation mode.

    Args:
        network: freshly built; its weights are changed.
        pixels: ``(n, 28, 28)`` in 0..1.
        labels: ``(n,)`` class indices.
        recipe: the hyper-parameters.
        seed: of order and augmentation (initial weights are the caller's).
        teacher_logits: ``(n, 10)`` to follow when ``recipe.distil_weight`` > 0.
        progress: called after every epoch with (done, total, mean loss).
    """
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.from_numpy(pixels), torch.from_numpy(labels)
    teacher = None if teacher_logits is None else torch.from_numpy(teacher_logits)
    network = network.to(memory_format=torch.channels_last).train()
    averaged = copy.deepcopy(network)
    decayed = [p for p in network.parameters() if p.ndim > 1]
    plain = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain}],
        lr=recipe.peak_rate,
        momentum=0.9,
        nesterov=True,
    )
    num_batches = len(inputs) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=recipe.peak_rate,
        total_steps=recipe.epochs * num_batches,
        pct_start=0.2,
        anneal_strategy="linear",
        div_factor=10,
        final_div_factor=1000,
        cycle_momentum=False,
    )
    bfloat16 = has_bfloat16()
    steps = 0
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(inputs), generator=generator)
        total = 0.0
        for batch in range(num_batches):
            chosen = order[batch * BATCH : (batch + 1) * BATCH]
            seen = augment(inputs[chosen], recipe.erase_chance, generator)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
                logits = network(seen)
            guide = None if teacher is None else teacher[chosen]
            loss = _loss(logits.float(), targets[chosen], guide, recipe)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            steps += 1
            # Until the average has seen enough steps, it leans on the newest weights.
            decay = min(recipe.average_decay, (1 + steps) / (10 + steps))
            _average_into(averaged, network, decay)
            total += float(loss.detach())
        if progress is not None:
            progress(epoch + 1, recipe.epochs, total / num_batches)
    return averaged.eval()


def _average_into(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for kept, new in zip(
            averaged.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def logits_of(network: nn.Module, pixels: Float32s, batch: int = 500) -> Float32s:
    """``(n, 10)`` float32 logits of ``(n, 28, 28)`` pixels, in full precision."""
    network.eval()
    with torch.no_grad():
        parts = [
            network(torch.from_numpy(pixels[start : start + batch])).numpy()
            for start in range(0, len(pixels), batch)
        ]
    return np.concatenate(parts)
