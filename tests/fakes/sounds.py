"""Recordings of three kinds of tones in noise, and classifiers of their log-mel features."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from fakes.foreign import CLASSES, Array

RATE, LENGTH = 8000, 1100
FRAME, HOP, BANDS, FFT = 200, 100, 12, 256
NUM_FRAMES = 10
LOG_MEL = f"rate={RATE},frame={FRAME},hop={HOP},bands={BANDS}"
_TONES_HZ = (500, 1200, 2600)


def recordings(num: int = 400, seed: int = 1) -> tuple[Array, Array]:
    """(n, 1100) int16 as a sound card gives them, and (n,) labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), num)
    time = np.arange(LENGTH) / RATE
    hertz = np.array(_TONES_HZ)[labels] * random.uniform(0.8, 1.2, num)
    tones = np.sin(2 * np.pi * hertz[:, None] * time + random.uniform(0, 6, (num, 1)))
    loud = random.uniform(0.02, 0.5, (num, 1))
    waves = loud * (tones + random.normal(0, 1.6, (num, LENGTH)))
    return np.clip(waves * 8000, -32768, 32767).astype(np.int16), labels.astype(np.int64)


def log_mel(waves: Array) -> Any:
    """(n, frames, bands) by numpy's functions in float64, of int16 divided by 32768."""
    frames = np.stack(
        [waves[:, k * HOP : k * HOP + FRAME] / 32768.0 for k in range(NUM_FRAMES)], axis=1
    )
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME + 1)[:-1], FFT)) ** 2
    top = 15 + 27 * np.log(RATE / 2000) / np.log(6.4)
    mels = np.linspace(0, top, BANDS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    hertz = np.arange(FFT // 2 + 1) * RATE / FFT
    up = (hertz[:, None] - edges[:-2]) / np.diff(edges)[:-1]
    down = (edges[2:] - hertz[:, None]) / np.diff(edges)[1:]
    return np.log(np.maximum(power @ np.maximum(0, np.minimum(up, down)), 1e-10))


@cache
def sound_weights() -> tuple[Array, Array]:
    """Softmax regression on the features as they are: (frames * bands, 3) and (3,)."""
    waves, labels = recordings(800, seed=5)
    x = log_mel(waves).reshape(len(waves), -1)
    mean, std = x.mean(axis=0), x.std(axis=0)
    scaled = (x - mean) / std
    weights, bias = np.zeros((x.shape[1], len(CLASSES))), np.zeros(len(CLASSES))
    wanted = np.eye(len(CLASSES))[labels]
    for _ in range(200):
        scores = scaled @ weights + bias
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        error = (shares - wanted) / len(x)
        weights -= 0.3 * (scaled.T @ error + 1e-3 * weights)
        bias -= 0.3 * error.sum(axis=0)
    slopes = weights / std[:, None]
    return slopes.astype(np.float32), (bias - mean @ slopes).astype(np.float32)
